from .label_metrics import CalibrationMetrics, ClassificationMetrics, MultiLabelMetrics, RegressionMetrics
from .neighbours import Vote, nearest
from .segmentation import SegmentationMetrics
from .statistics import (
    accuracy_interval,
    bootstrap_interval,
    holm,
    permutation_test,
)

__all__ = [
    "CalibrationMetrics",
    "ClassificationMetrics",
    "MultiLabelMetrics",
    "RegressionMetrics",
    "SegmentationMetrics",
    "Vote",
    "accuracy_interval",
    "bootstrap_interval",
    "holm",
    "nearest",
    "permutation_test",
]
