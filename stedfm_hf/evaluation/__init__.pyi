from .baselines import chance_accuracy, intensity_histograms, log_spectra, log_spectrum_pca, pixel_pca
from .commands import evaluate_knn, evaluate_probe, evaluate_segmentation
from .knn import (
    KnnResult,
    ReferenceResult,
    accuracy_difference,
    knn_accuracy,
    knn_leave_one_out,
    knn_votes,
    reference_protocol,
    zscore_by,
)
from .results import ComparisonResult, MaskResult

__all__ = [
    "ComparisonResult",
    "KnnResult",
    "MaskResult",
    "ReferenceResult",
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
    "pixel_pca",
    "reference_protocol",
    "zscore_by",
]
