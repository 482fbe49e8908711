"""What an evaluation leaves behind: figures for programs, tables, pictures and one page for people."""

from stedfm_hf.evaluation.report.evaluation import Evaluation
from stedfm_hf.evaluation.report.page import write_report
from stedfm_hf.evaluation.report.shared import Contestant

__all__ = ["Contestant", "Evaluation", "write_report"]
