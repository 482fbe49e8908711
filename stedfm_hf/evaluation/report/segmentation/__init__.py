"""What an evaluation of segmentation leaves behind: scores of every image, figures, and one page for people."""

from stedfm_hf.evaluation.report.segmentation.findings import Example, Findings
from stedfm_hf.evaluation.report.segmentation.page import PER_IMAGE, RESULTS, write_findings

__all__ = ["PER_IMAGE", "RESULTS", "Example", "Findings", "write_findings"]
