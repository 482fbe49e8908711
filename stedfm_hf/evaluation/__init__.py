"""Scores of vectors and models, and the simple baselines every accuracy stands beside."""

from stedfm_hf.evaluation.baselines import chance_accuracy, intensity_histograms, log_spectra, log_spectrum_pca
from stedfm_hf.evaluation.knn import (
    KnnResult,
    accuracy_difference,
    accuracy_interval,
    knn_accuracy,
    knn_leave_one_out,
    nearest,
    zscore_by,
)

__all__ = [
    "KnnResult",
    "accuracy_difference",
    "accuracy_interval",
    "chance_accuracy",
    "intensity_histograms",
    "knn_accuracy",
    "knn_leave_one_out",
    "log_spectra",
    "log_spectrum_pca",
    "nearest",
    "zscore_by",
]
