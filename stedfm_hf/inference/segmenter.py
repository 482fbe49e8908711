"""Load a segmentation model and check its decoder and its class names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.inference.loading import Loaded, Loading, load_headed, names_of
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.weights.models import ModelSource, find_model


@dataclass(frozen=True)
class Segmenter(Loaded):
    """Segmentation model ready for inference (see `Loaded`)."""

    model: StedFmForSemanticSegmentation

    @property
    def single(self) -> bool:
        """Whether every pixel has one class; otherwise classes may overlap."""
        return self.model.config.target_type == "single_label"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the maps.

        Raises:
            UserError: If a class has no name, or two have the same.
        """
        return names_of(self, "classes")

    @property
    def object_classes(self) -> dict[int, str]:
        """Classes whose connected components are objects: all classes, without class 0 if it is background."""
        return {
            number: name
            for number, name in enumerate(self.classes)
            if not (self.single and number == 0 and name.strip().casefold() == "background")
        }


def load_segmenter(
    model: str | Path | ModelSource, *, device: str = "auto", precision: str = "float32", backend: str = "torch"
) -> Segmenter:
    """Load a model with a decoder for masks from a folder or Hub repository.

    Args:
        model: Folder written by `stedfm finetune segmentation`, `stedfm convert` or `save_pretrained`, or Hub id.
        device: As for `load_encoder`.
        precision: As for `load_encoder`.
        backend: As for `load_encoder`.

    Raises:
        UserError: If the model, the device, the precision or the backend is not available, or the model has no
            decoder.

    Example:
        >>> import tempfile
        >>> from stedfm_hf import StedFmConfig
        >>> config = StedFmConfig(num_hidden_layers=4, id2label={0: "background", 1: "rings"})
        >>> folder = tempfile.mkdtemp()
        >>> StedFmForSemanticSegmentation(config).save_pretrained(folder)
        >>> load_segmenter(folder, device="cpu").object_classes
        {1: 'rings'}
    """
    source = find_model(model, head="ForSemanticSegmentation")
    loading = Loading(load_segmenter, source, device, precision, backend)
    return Segmenter(**load_headed(source, "segmenter", device, precision, backend), loading=loading)
