from .batch_effects import BatchEffect, batch_effect, call_effects, paired_batch_effect
from .frechet import frechet_distance
from .label_metrics import CalibrationMetrics, ClassificationMetrics, MultiLabelMetrics, RegressionMetrics
from .neighbours import KnnVote, nearest
from .representation_scores import RepresentationScores, representation_scores
from .segmentation import SegmentationMetrics
from .statistics import (
    accuracy_interval,
    bootstrap_interval,
    holm,
    permutation_test,
)

__all__ = [
    "BatchEffect",
    "CalibrationMetrics",
    "ClassificationMetrics",
    "KnnVote",
    "MultiLabelMetrics",
    "RegressionMetrics",
    "RepresentationScores",
    "SegmentationMetrics",
    "accuracy_interval",
    "batch_effect",
    "bootstrap_interval",
    "call_effects",
    "frechet_distance",
    "holm",
    "nearest",
    "paired_batch_effect",
    "permutation_test",
    "representation_scores",
]
