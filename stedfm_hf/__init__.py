"""STED-FM, a foundation model for super-resolution STED microscopy, in the Hugging Face ecosystem.

Importing the package registers `stedfm` with the Auto classes of transformers and the pipelines
`stedfm-feature-extraction` and `stedfm-image-classification`.
"""

import transformers
from transformers.pipelines import PIPELINE_REGISTRY

from .images import SeriesInfo, StedImage, list_series, read_image
from .modeling.channels import adapt_channels
from .modeling.configuration_stedfm import StedFmConfig
from .modeling.hub_stedfm import AUTO_CLASSES, PIPELINES
from .modeling.image_processing_stedfm import StedFmImageProcessor
from .modeling.modeling_stedfm import StedFmBackbone, StedFmForImageClassification, StedFmModel
from .modeling.modeling_stedfm_mae import StedFmForPreTraining

__version__ = "0.1.0"


def _register() -> None:
    transformers.AutoConfig.register(StedFmConfig.model_type, StedFmConfig, exist_ok=True)
    for auto, cls in AUTO_CLASSES.items():
        if auto == "AutoImageProcessor":
            transformers.AutoImageProcessor.register(StedFmConfig, image_processor_classes={"pil": cls}, exist_ok=True)
        elif auto != "AutoConfig":
            getattr(transformers, auto).register(StedFmConfig, cls, exist_ok=True)
    for name, (_, pipeline, auto) in PIPELINES.items():
        # Our own task names: the stock tasks stay what they are.
        PIPELINE_REGISTRY.register_pipeline(
            name, pipeline_class=pipeline, pt_model=getattr(transformers, auto), type="image"
        )


_register()

__all__ = [
    "SeriesInfo",
    "StedFmBackbone",
    "StedFmConfig",
    "StedFmForImageClassification",
    "StedFmForPreTraining",
    "StedFmImageProcessor",
    "StedFmModel",
    "StedImage",
    "adapt_channels",
    "list_series",
    "read_image",
]
