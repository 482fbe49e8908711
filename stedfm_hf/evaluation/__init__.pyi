from .baselines import chance_accuracy, intensity_histograms, log_spectra, log_spectrum_pca
from .commands import evaluate_knn, evaluate_probe, evaluate_segmentation
from .knn import (
    KnnResult,
    accuracy_difference,
    knn_accuracy,
    knn_leave_one_out,
    knn_votes,
    zscore_by,
)
from .results import ComparisonResult, MaskResult

__all__ = [
    "ComparisonResult",
    "KnnResult",
    "MaskResult",
    "accuracy_difference",
    "chance_accuracy",
    "evaluate_knn",
    "evaluate_probe",
    "evaluate_segmentation",
    "intensity_histograms",
    "knn_accuracy",
    "knn_leave_one_out",
    "knn_votes",
    "log_spectra",
    "log_spectrum_pca",
    "zscore_by",
]
