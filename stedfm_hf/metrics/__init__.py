"""Metrics of the library `evaluate` that need neither network nor cache folder: to be called, never loaded."""

from stedfm_hf.metrics.calibration import CalibrationMetrics
from stedfm_hf.metrics.classification import ClassificationMetrics
from stedfm_hf.metrics.multilabel import MultiLabelMetrics
from stedfm_hf.metrics.regression import RegressionMetrics
from stedfm_hf.metrics.segmentation import SegmentationMetrics

__all__ = [
    "CalibrationMetrics",
    "ClassificationMetrics",
    "MultiLabelMetrics",
    "RegressionMetrics",
    "SegmentationMetrics",
]
