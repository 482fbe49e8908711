from .label_metrics import CalibrationMetrics, ClassificationMetrics, MultiLabelMetrics, RegressionMetrics
from .neighbours import VOTES, Vote, nearest
from .segmentation import SegmentationMetrics
from .statistics import (
    accuracy_interval,
    bootstrap_interval,
    holm,
    permutation_test,
)

__all__ = [
    "VOTES",
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
