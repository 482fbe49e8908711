from .classification import classify
from .embedding import embed
from .field_records import SegmentResult
from .loading import Classifier, Encoder, load_classifier, load_encoder
from .one_image import classify_image, embed_image, embed_patches, patch_similarity
from .reconstruction import Autoencoder, load_autoencoder, reconstruct_image
from .segmentation import segment
from .segmenter import Segmenter, load_segmenter
from .tables import TableResult

__all__ = [
    "Autoencoder",
    "Classifier",
    "Encoder",
    "SegmentResult",
    "Segmenter",
    "TableResult",
    "classify",
    "classify_image",
    "embed",
    "embed_image",
    "embed_patches",
    "load_autoencoder",
    "load_classifier",
    "load_encoder",
    "load_segmenter",
    "patch_similarity",
    "reconstruct_image",
    "segment",
]
