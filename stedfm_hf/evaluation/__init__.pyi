from .baselines import intensity_histograms, log_spectra
from .commands import (
    evaluate_knn,
    evaluate_probe,
    evaluate_retrieval,
    evaluate_robustness,
    evaluate_segmentation,
    evaluate_weights,
)
from .knn import KnnResult, knn_accuracy, zscore_by
from .results import ComparisonResult, MaskResult, RetrievalResult, RobustnessResult, WeightsResult

__all__ = [
    "ComparisonResult",
    "KnnResult",
    "MaskResult",
    "RetrievalResult",
    "RobustnessResult",
    "WeightsResult",
    "evaluate_knn",
    "evaluate_probe",
    "evaluate_retrieval",
    "evaluate_robustness",
    "evaluate_segmentation",
    "evaluate_weights",
    "intensity_histograms",
    "knn_accuracy",
    "log_spectra",
    "zscore_by",
]
