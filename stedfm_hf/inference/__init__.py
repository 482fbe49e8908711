"""Models applied to images: files, folders and datasets in, tables and maps out."""

from stedfm_hf.inference.classification import ClassifyResult, classify
from stedfm_hf.inference.embedding import EmbedResult, embed
from stedfm_hf.inference.loading import Classifier, Encoder, load_classifier, load_encoder
from stedfm_hf.inference.segmentation import segment
from stedfm_hf.inference.segmenter import Segmenter, load_segmenter

__all__ = [
    "Classifier",
    "ClassifyResult",
    "EmbedResult",
    "Encoder",
    "Segmenter",
    "classify",
    "embed",
    "load_classifier",
    "load_encoder",
    "load_segmenter",
    "segment",
]
