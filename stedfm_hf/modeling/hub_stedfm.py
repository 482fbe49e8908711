"""What a saved STED-FM folder holds besides weights: every class, every pipeline, the processor and the code."""

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
"""Every folder names all of them, whichever was saved: a masked autoencoder also gives its encoder, its backbone and
a classifier to fine-tune."""

PIPELINES: dict[str, tuple[str, type[Any], str]] = {
    "stedfm-feature-extraction": ("image-feature-extraction", StedFmFeatureExtractionPipeline, "AutoModel"),
    "stedfm-image-classification": (
        "image-classification",
        StedFmImageClassificationPipeline,
        "AutoModelForImageClassification",
    ),
    "stedfm-segmentation": ("image-segmentation", StedFmImageSegmentationPipeline, "AutoModelForSemanticSegmentation"),
}
"""Our task name to the stock task a folder answers to, the pipeline and the Auto class of its model."""


def complete_folder(model: PreTrainedModel, folder: Path, write: bool = True) -> None:
    """Make a folder about to receive a model complete.

    Args:
        model: The model to be saved; its configuration gets `auto_map` and `custom_pipelines`.
        folder: Where it will be saved; gets all flat code files and, unless it has one, `preprocessor_config.json`:
            the one the model was loaded with, or the default.
        write: False changes the configuration alone (all ranks but the first of a distributed run).
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
