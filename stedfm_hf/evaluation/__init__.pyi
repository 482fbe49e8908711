from .baselines import intensity_histograms, log_spectra
from .commands import evaluate_knn, evaluate_probe, evaluate_segmentation
from .knn import KnnResult, knn_accuracy, zscore_by
from .results import ComparisonResult, MaskResult

__all__ = [
    "ComparisonResult",
    "KnnResult",
    "MaskResult",
    "evaluate_knn",
    "evaluate_probe",
    "evaluate_segmentation",
    "intensity_histograms",
    "knn_accuracy",
    "log_spectra",
    "zscore_by",
]
