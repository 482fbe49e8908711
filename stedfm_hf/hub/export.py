"""`stedfm export`: write a model in the format of another library or runtime, and compare both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.hub.export_settings import ExportSettings
from stedfm_hf.runs import UserError, print_note
from stedfm_hf.runs.files import sibling_folder
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import ModelSource, find_model

if TYPE_CHECKING:
    from stedfm_hf.inference.loading import Loaded

COMMAND = "export"
_RESULTS = ("config.json", "README.md")
_OTHER_RESULTS = (
    "preprocessor_config.json",
    "model.safetensors",
    "model.onnx",
    "model.xml",
    "model.bin",
    "head.safetensors",
    "model.bioimageio.zip",
)


@dataclass(frozen=True)
class Export(OutputResult):
    """Result of `export`: a folder for another library."""

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference between the outputs of both models for random images."""
        return max(self.manifest.options["largest_differences"].values())

    def summary(self) -> str:
        """Return what was written, and the largest difference."""
        facts = self.manifest.options
        return f"{self.output}: {facts['described']}\n{facts['comparison']}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data, including the facts about the export in the manifest."""
        return super().to_json() | self.manifest.options | {"largest_difference": self.largest_difference}


@takes_settings(ExportSettings)
def export(settings: ExportSettings) -> Export:
    """Export a model for another library or runtime, and compare the outputs of both models.

    The files are written to a temporary folder and moved: if the export fails, the output is not changed.

    | format | models | what loads the folder |
    |---|---|---|
    | `transformers` | encoder, masked autoencoder, classifier | Auto classes of transformers, without remote code |
    | `timm` | encoder, classifier | `timm.create_model("local-dir:FOLDER", pretrained=True)` |
    | `onnx` | encoder, classifier, segmenter | onnxruntime, and `--backend onnx` of the commands |
    | `openvino` | encoder, classifier, segmenter | OpenVINO, and `--backend openvino` of the commands |
    | `bioimageio` | segmenter | Fiji (deepImageJ), ilastik, napari, and `bioimageio.core` |

    Of a masked autoencoder, all formats but `transformers` export the encoder.

    Returns:
        Folder and manifest. `manifest.options` has the largest difference of each output (`largest_differences`),
        the smallest cosine similarity and the sizes of the images.

    Raises:
        UserError: For wrong arguments, a model that the format cannot express, or an export that differs from the
            model.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "demo-timm"
        >>> export("demo", "timm", folder).largest_difference < 2e-5
        True
    """
    output = Path(settings.output)
    check_output(output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    source = find_model(settings.model)

    # Errors up to here are reported at once: these modules import torch, which takes seconds.
    from stedfm_hf.exports.folders import write_export

    loaded = _load(source, settings)
    opened = partial(
        open_output,
        output,
        COMMAND,
        settings,
        results=_RESULTS,
        temporary=_OTHER_RESULTS,
        model=loaded.name,
        weights_sha256=loaded.weights_sha256,
    )
    if not settings.overwrite:
        with opened(writes=False) as earlier:
            if earlier.finished:
                print_note(f"{output}: is finished; replace it with --overwrite")
                return Export(output, earlier.manifest)
    with sibling_folder(output) as folder:
        facts = write_export(
            loaded.model,
            loaded.processor,
            folder,
            format=settings.format,
            name=loaded.name,
            title=output.resolve().name,
            weights_sha256=loaded.weights_sha256,
            precision=settings.precision,
            image_size=settings.image_size,
            licence=_licence(source),
        )
        with opened(overwrite=settings.overwrite, options=facts) as written:
            for file in folder.iterdir():
                os.replace(file, output / file.name)
    return Export(output, written.manifest)


def _load(source: ModelSource, settings: ExportSettings) -> Loaded:
    """Load the model in float32 on the CPU: the packaged encoder, for example, is stored in half precision.

    Of a folder with a masked autoencoder, only the format transformers takes the decoder, too.
    """
    from transformers import AutoConfig

    from stedfm_hf.exports.kinds import architectures_of, kind_of_architectures
    from stedfm_hf.inference.loading import load_classifier, load_encoder
    from stedfm_hf.inference.reconstruction import load_autoencoder
    from stedfm_hf.inference.segmenter import load_segmenter
    from stedfm_hf.weights.damage import explained

    with explained(source.given, source.location, "give a folder written by `stedfm convert`, a Hub id or demo"):
        config = AutoConfig.from_pretrained(source.location)
    kind = kind_of_architectures(architectures_of(config))
    loaded: Loaded
    if settings.encoder_only or kind == "encoder" or (kind == "pretraining" and settings.format != "transformers"):
        loaded = load_encoder(source, device="cpu")
    elif kind == "pretraining":
        loaded = load_autoencoder(source, device="cpu")
    else:
        loaded = (load_classifier if kind == "classifier" else load_segmenter)(source, device="cpu")
    size, patch_size = settings.image_size, loaded.model.config.patch_size
    if size is not None and size % patch_size:
        raise UserError(f"image size {size} is not a multiple of the patch size of the model, {patch_size} pixels")
    return loaded


def _licence(source: ModelSource) -> str | None:
    """Return the licence in the card of a model folder, or None."""
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    card = Path(source.location, "README.md")
    try:
        found = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, YAMLError):  # a card that somebody edited
        return None
    return found if isinstance(found, str) else None
