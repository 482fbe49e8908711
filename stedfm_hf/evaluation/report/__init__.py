"""What an evaluation leaves behind: figures for programs, tables, pictures and one page for people."""

from stedfm_hf.evaluation.report.evaluation import Contestant, Evaluation
from stedfm_hf.evaluation.report.writing import write_report

__all__ = ["Contestant", "Evaluation", "write_report"]
