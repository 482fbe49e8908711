"""STED-FM, a foundation model for super-resolution STED microscopy, in the Hugging Face ecosystem.

Importing the package registers `stedfm` with the Auto classes of transformers and the pipelines
`stedfm-feature-extraction`, `stedfm-image-classification` and `stedfm-segmentation`. It imports neither transformers
nor torch: that is done by what needs them, and STED-FM is registered at that moment.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .modeling.late_registration import register_late

if TYPE_CHECKING:
    from .images import SeriesInfo, StedImage, list_series, read_image
    from .modeling.channels import adapt_channels
    from .modeling.configuration_stedfm import StedFmConfig
    from .modeling.image_processing_stedfm import StedFmImageProcessor
    from .modeling.modeling_stedfm import StedFmBackbone, StedFmForImageClassification, StedFmModel
    from .modeling.modeling_stedfm_mae import StedFmForPreTraining
    from .modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation

__version__ = "0.1.0"

_HOMES = {
    "SeriesInfo": "images",
    "StedFmBackbone": "modeling.modeling_stedfm",
    "StedFmConfig": "modeling.configuration_stedfm",
    "StedFmForImageClassification": "modeling.modeling_stedfm",
    "StedFmForPreTraining": "modeling.modeling_stedfm_mae",
    "StedFmForSemanticSegmentation": "modeling.modeling_stedfm_segmentation",
    "StedFmImageProcessor": "modeling.image_processing_stedfm",
    "StedFmModel": "modeling.modeling_stedfm",
    "StedImage": "images",
    "adapt_channels": "modeling.channels",
    "list_series": "images",
    "read_image": "images",
}

__all__ = [
    "SeriesInfo",
    "StedFmBackbone",
    "StedFmConfig",
    "StedFmForImageClassification",
    "StedFmForPreTraining",
    "StedFmForSemanticSegmentation",
    "StedFmImageProcessor",
    "StedFmModel",
    "StedImage",
    "adapt_channels",
    "list_series",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


register_late()
