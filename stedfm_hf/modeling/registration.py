"""Register STED-FM with the Auto classes and `pipeline` of transformers, when this module is imported."""

import transformers
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_stedfm import StedFmConfig
from .hub_stedfm import AUTO_CLASSES, PIPELINES

transformers.AutoConfig.register(StedFmConfig.model_type, StedFmConfig, exist_ok=True)
for _auto, _cls in AUTO_CLASSES.items():
    if _auto == "AutoImageProcessor":
        transformers.AutoImageProcessor.register(StedFmConfig, image_processor_classes={"pil": _cls}, exist_ok=True)
    elif _auto != "AutoConfig":
        getattr(transformers, _auto).register(StedFmConfig, _cls, exist_ok=True)
for _name, (_, _pipeline, _auto) in PIPELINES.items():
    # Our own task names: the stock tasks stay what they are.
    PIPELINE_REGISTRY.register_pipeline(
        _name, pipeline_class=_pipeline, pt_model=getattr(transformers, _auto), type="image"
    )
