"""Models applied to images: files, folders and datasets in, tables out."""

from stedfm_hf.inference.classification import ClassifyResult, classify
from stedfm_hf.inference.embedding import EmbedResult, embed
from stedfm_hf.inference.loading import Classifier, Encoder, load_classifier, load_encoder

__all__ = [
    "Classifier",
    "ClassifyResult",
    "EmbedResult",
    "Encoder",
    "classify",
    "embed",
    "load_classifier",
    "load_encoder",
]
