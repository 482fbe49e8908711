"""Complete a saved folder: Auto classes, pipelines, image processor and model code."""

import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files

from .configuration_stedfm import StedFmConfig
from .image_processing_stedfm import StedFmImageProcessor
from .modeling_stedfm import StedFmBackbone, StedFmForImageClassification, StedFmModel
from .modeling_stedfm_mae import StedFmForPreTraining
from .modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from .pipeline_stedfm import (
    StedFmFeatureExtractionPipeline,
    StedFmImageClassificationPipeline,
    StedFmImageSegmentationPipeline,
)

AUTO_CLASSES: dict[str, type[Any]] = {
    "AutoConfig": StedFmConfig,
    "AutoModel": StedFmModel,
    "AutoModelForPreTraining": StedFmForPreTraining,
    "AutoModelForImageClassification": StedFmForImageClassification,
    "AutoModelForSemanticSegmentation": StedFmForSemanticSegmentation,
    "AutoBackbone": StedFmBackbone,
    "AutoImageProcessor": StedFmImageProcessor,
}
"""Auto classes named in every folder: a masked autoencoder also loads as encoder, backbone or classifier."""

PIPELINES: dict[str, tuple[str, type[Any], str]] = {
    "stedfm-feature-extraction": ("image-feature-extraction", StedFmFeatureExtractionPipeline, "AutoModel"),
    "stedfm-image-classification": (
        "image-classification",
        StedFmImageClassificationPipeline,
        "AutoModelForImageClassification",
    ),
    "stedfm-segmentation": ("image-segmentation", StedFmImageSegmentationPipeline, "AutoModelForSemanticSegmentation"),
}
"""Task of this package: stock task of transformers, pipeline, and Auto class of the model."""


def complete_folder(model: PreTrainedModel, folder: Path, write: bool = True) -> None:
    """Write everything except for the weights and the configuration to the folder of a model.

    Args:
        model: Model to save; `auto_map` and `custom_pipelines` are added to its configuration.
        folder: Folder to write. It gets all code files and, unless it has one, `preprocessor_config.json`: that of the
            folder from which the model was loaded, or the default.
        write: Whether to write files; False only changes the configuration (for ranks other than the first).
    """
    model.config.auto_map = {auto: _reference(cls) for auto, cls in AUTO_CLASSES.items()}
    model.config.custom_pipelines = {
        task: {"impl": _reference(pipeline), "pt": [auto]} for task, pipeline, auto in PIPELINES.values()
    }
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file in {Path(__file__), *map(Path, get_relative_import_files(__file__))}:
        shutil.copyfile(file, folder / file.name)
    if not (folder / "preprocessor_config.json").exists():
        _image_processor(model).save_pretrained(folder)


def _reference(cls: type[Any]) -> str:
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def _image_processor(model: PreTrainedModel) -> StedFmImageProcessor:
    if model.name_or_path:
        try:
            return StedFmImageProcessor.from_pretrained(model.name_or_path, local_files_only=True)
        except (OSError, ValueError):
            pass  # neither a folder nor a cached repository with a processor: the default then
    return StedFmImageProcessor(patch_size=model.config.patch_size)


__all__ = ["AUTO_CLASSES", "PIPELINES", "complete_folder"]
