"""Reports of `evaluate knn` and `evaluate probe`: metrics as JSON, tables, figures and an HTML page."""

from stedfm_hf.evaluation.report.evaluation import Evaluation
from stedfm_hf.evaluation.report.page import write_report
from stedfm_hf.evaluation.report.shared import MethodInfo

__all__ = ["MethodInfo", "Evaluation", "write_report"]
