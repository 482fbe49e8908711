from .frechet import frechet_distance
from .label_metrics import CalibrationMetrics, ClassificationMetrics, MultiLabelMetrics, RegressionMetrics
from .neighbours import KnnVote, nearest
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
    "KnnVote",
    "MultiLabelMetrics",
    "RegressionMetrics",
    "SegmentationMetrics",
    "accuracy_interval",
    "bootstrap_interval",
    "frechet_distance",
    "holm",
    "nearest",
    "permutation_test",
]
