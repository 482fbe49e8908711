"""Complete a saved folder: Auto classes, pipelines, image processor and model code."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import IMAGE_PROCESSOR_NAME, cached_file

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


HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
"""Arguments of `from_pretrained` that decide which folder is read."""


def complete_folder(model: PreTrainedModel, folder: Path, write: bool = True) -> None:
    """Write everything except for the weights and the configuration to the folder of a model.

    Args:
        model: Model to save; `auto_map` and `custom_pipelines` are added to its configuration.
        folder: Folder to write. It gets all code files and, unless it has one, `preprocessor_config.json`: that of the
            folder from which the model was loaded, or the default. The folder of an adapter, which has no
            configuration, only gets the latter.
        write: Whether to write files; False only changes the configuration (for ranks other than the first).
    """
    model.config.auto_map = {auto: _reference(cls) for auto, cls in AUTO_CLASSES.items()}
    model.config.custom_pipelines = {
        task: {"impl": _reference(pipeline), "pt": [auto]} for task, pipeline, auto in PIPELINES.values()
    }
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not getattr(model, "_hf_peft_config_loaded", False):
        for file in {Path(__file__), *map(Path, get_relative_import_files(__file__))}:
            shutil.copyfile(file, folder / file.name)
    processor = folder / IMAGE_PROCESSOR_NAME
    if processor.exists():
        return
    if model._processor_text is not None:
        processor.write_text(_with_code(model._processor_text), encoding="utf-8")
    else:
        config = model.config
        StedFmImageProcessor(patch_size=config.patch_size, size=config.image_size).save_pretrained(folder)


def _with_code(text: str) -> str:
    """Return the text of a processor with the reference to its code, which a folder for this package may lack."""
    try:
        settings = json.loads(text)
        settings |= {"auto_map": {"AutoImageProcessor": _reference(StedFmImageProcessor)}}
    except (ValueError, TypeError):  # damaged: loading the folder names the file
        return text
    return json.dumps(settings, indent=2, sort_keys=True) + "\n"


def read_text(source: Any, name: str, arguments: Mapping[str, Any]) -> str | None:
    """Return the text of a file of a model, or None if the folder or repository of the Hub has none.

    Args:
        source: First argument of `from_pretrained`.
        name: Name of the file, such as `preprocessor_config.json`.
        arguments: Keyword arguments of `from_pretrained`.
    """
    if source is None or Path(str(source)).is_file():
        return None
    wanted = {name: arguments[name] for name in HUB_ARGUMENTS if name in arguments}
    wanted["subfolder"] = wanted.get("subfolder") or ""
    path = cached_file(str(source), name, **wanted, **dict.fromkeys(_DO_NOT_RAISE, False))
    return None if path is None else Path(path).read_text(encoding="utf-8", errors="replace")


_DO_NOT_RAISE = (
    "_raise_exceptions_for_gated_repo",
    "_raise_exceptions_for_missing_entries",
    "_raise_exceptions_for_connection_errors",
)


def share_weights(folder: Path) -> None:
    """Give the weights of a folder the permissions of its image processor.

    safetensors lets only the owner read what it writes; a shared folder shall be readable as a whole.
    """
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(folder / IMAGE_PROCESSOR_NAME, weights)


def _reference(cls: type[Any]) -> str:
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


__all__ = ["AUTO_CLASSES", "PIPELINES", "complete_folder", "read_text", "share_weights"]
