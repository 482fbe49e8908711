"""Load encoder and image processor of a pipeline, with the code of this package or with that in the folder.

diffusers downloads and copies a single file for each component, so that this file stands alone. The other files are in
the folder of the image processor, which is downloaded as a whole because it has no weights.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.image_processing_base import ImageProcessingMixin

CODE_FOLDER = "image_processor"


class EncoderLoader(PreTrainedModel):
    """Loader of the encoder; a subclass of PreTrainedModel, so that diffusers passes it a precision and a device."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the encoder in a folder.

        Args:
            pretrained_model_name_or_path: Folder of the encoder in the folder of a pipeline.
            args: Other positional arguments of `StedFmModel.from_pretrained`.
            kwargs: Other keyword arguments of `StedFmModel.from_pretrained`.
        """
        model_class = _find_class("modeling_stedfm", "StedFmModel", pretrained_model_name_or_path)
        return model_class.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


class ImageProcessorLoader(ImageProcessingMixin):
    """Loader of the image processor."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load the image processor in a folder.

        Args:
            pretrained_model_name_or_path: Folder of the image processor in the folder of a pipeline.
            kwargs: Other arguments of `StedFmImageProcessor.from_pretrained`.
        """
        processor_class = _find_class("image_processing_stedfm", "StedFmImageProcessor", pretrained_model_name_or_path)
        return processor_class.from_pretrained(pretrained_model_name_or_path, **kwargs)


def _find_class(module: str, name: str, folder: Any) -> Any:
    package = __name__.rpartition(".")[0]
    if not package.startswith("diffusers_modules"):
        return getattr(import_module(f"{package}.{module}"), name)
    return get_class_from_dynamic_module(f"{module}.{name}", str(Path(folder).parent / CODE_FOLDER))


__all__ = ["EncoderLoader", "ImageProcessorLoader"]
