"""Report of `evaluate robustness`: metrics as JSON, tables, figures and an HTML page."""

from stedfm_hf.evaluation.report.robustness.evaluation import FILES, Robustness
from stedfm_hf.evaluation.report.robustness.page import write_robustness_report

__all__ = ["FILES", "Robustness", "write_robustness_report"]
