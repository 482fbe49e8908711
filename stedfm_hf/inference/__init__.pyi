from .classification import classify
from .embedding import embed
from .field_records import SegmentResult
from .loading import Classifier, Encoder, load_classifier, load_encoder
from .segmentation import segment
from .segmenter import Segmenter, load_segmenter
from .tables import TableResult

__all__ = [
    "Classifier",
    "Encoder",
    "SegmentResult",
    "Segmenter",
    "TableResult",
    "classify",
    "embed",
    "load_classifier",
    "load_encoder",
    "load_segmenter",
    "segment",
]
