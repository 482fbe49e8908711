"""Models applied to images: files, folders and datasets in, tables out."""

from stedfm_hf.inference.embedding import EmbedResult, embed
from stedfm_hf.inference.loading import Encoder, load_encoder

__all__ = ["EmbedResult", "Encoder", "embed", "load_encoder"]
