from .images import SeriesInfo, StedImage, list_series, read_image
from .modeling.channels import adapt_channels
from .modeling.configuration_stedfm import StedFmConfig
from .modeling.image_processing_stedfm import StedFmImageProcessor
from .modeling.modeling_stedfm import StedFmBackbone, StedFmForImageClassification, StedFmModel
from .modeling.modeling_stedfm_mae import StedFmForPreTraining
from .modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation

__version__: str
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
