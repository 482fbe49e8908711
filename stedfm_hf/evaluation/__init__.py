"""Scores of vectors and models, and the simple baselines every accuracy stands beside."""

from stedfm_hf.evaluation.baselines import (
    chance_accuracy,
    intensity_histograms,
    log_spectra,
    log_spectrum_pca,
    pixel_pca,
)
from stedfm_hf.evaluation.knn import (
    KnnResult,
    ReferenceResult,
    accuracy_difference,
    knn_accuracy,
    knn_leave_one_out,
    knn_votes,
    reference_protocol,
    zscore_by,
)
from stedfm_hf.metrics.neighbours import nearest
from stedfm_hf.metrics.statistics import (
    accuracy_interval,
    bootstrap_interval,
    holm,
    permutation_f_test,
    permutation_test,
)
from stedfm_hf.metrics.votes import VOTES, Vote

__all__ = [
    "VOTES",
    "KnnResult",
    "ReferenceResult",
    "Vote",
    "accuracy_difference",
    "accuracy_interval",
    "bootstrap_interval",
    "chance_accuracy",
    "holm",
    "intensity_histograms",
    "knn_accuracy",
    "knn_leave_one_out",
    "knn_votes",
    "log_spectra",
    "log_spectrum_pca",
    "nearest",
    "permutation_f_test",
    "permutation_test",
    "pixel_pca",
    "reference_protocol",
    "zscore_by",
]
