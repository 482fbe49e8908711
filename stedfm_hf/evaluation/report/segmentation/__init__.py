"""Report of `evaluate segmentation`: metrics as JSON, scores of each image, figures and an HTML page."""

from stedfm_hf.evaluation.report.segmentation.evaluation import Example, SegmentationEvaluation
from stedfm_hf.evaluation.report.segmentation.page import PER_IMAGE, RESULTS, write_segmentation_report

__all__ = ["PER_IMAGE", "RESULTS", "Example", "SegmentationEvaluation", "write_segmentation_report"]
