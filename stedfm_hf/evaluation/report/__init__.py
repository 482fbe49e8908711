"""Reports of `evaluate knn` and `evaluate probe`: metrics as JSON, tables, figures and an HTML page."""

from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.evaluation.report.evaluation import Evaluation
from stedfm_hf.evaluation.report.page import write_report

__all__ = ["MethodInfo", "Evaluation", "write_report"]
