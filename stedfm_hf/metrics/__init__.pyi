from .calibration import CalibrationMetrics
from .classification import ClassificationMetrics
from .multilabel import MultiLabelMetrics
from .neighbours import nearest
from .regression import RegressionMetrics
from .segmentation import SegmentationMetrics
from .statistics import (
    accuracy_interval,
    bootstrap_interval,
    holm,
    permutation_test,
)
from .votes import VOTES, Vote

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
