"""Export to a package of bioimage.io: a segmenter for Fiji (deepImageJ), ilastik and napari.

The package holds the ONNX graph of the model, its preprocessing and postprocessing, a simulated test image with the
expected result, a cover and a text. The library `bioimageio.core` checks the package and runs it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, get_args

import matplotlib
import numpy as np
import torch
from huggingface_hub import ModelCardData
from PIL import Image

from stedfm_hf.data.simulation.fields import simulate_field
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.exports.comparing import Comparison, compare
from stedfm_hf.exports.kinds import kind_of
from stedfm_hf.exports.onnx_format import write_graph, write_settings
from stedfm_hf.exports.readmes import TAGS, activation_of, render_about
from stedfm_hf.exports.runtimes import import_extra
from stedfm_hf.modeling.blending_stedfm import default_tile_overlap
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmPreTrainedModel
from stedfm_hf.reports import label_colours
from stedfm_hf.runs import UserError

PACKAGE_FILE = "model.bioimageio.zip"
_EXTRA = "bioimageio"
_IMAGE, _PROBABILITIES = "image", "probabilities"
_TITLE = "A Self-Supervised Foundation Model for Robust and Generalizable Representation Learning in STED Microscopy"
_DOI = "10.1101/2025.06.06.656993"
_MAX_NAME = 64
"""Largest length of the name of a model, in characters."""


def export_bioimageio(
    model: StedFmPreTrainedModel,
    processor: StedFmImageProcessor,
    folder: Path,
    *,
    name: str,
    title: str,
    weights_sha256: str,
    licence: str | None = None,
) -> Comparison:
    """Write a package of bioimage.io, check it, and compare its result for a simulated image with that of the model.

    Args:
        model: Segmenter in float32, in evaluation mode.
        processor: Its image processor.
        folder: Existing folder to write; it gets `model.bioimageio.zip`.
        name: Name of the model.
        title: Name of the export.
        weights_sha256: SHA-256 of the weights, which is stored in the graph.
        licence: Licence of the weights as an identifier of the Hub, or None if it is unknown.

    Raises:
        UserError: If the model is not a segmenter, its scaling or target cannot be expressed, a library is missing,
            or the package does not pass the check.
    """
    if kind_of(model) != "segmenter":
        raise UserError("--format bioimageio needs a segmenter; export other models with --format onnx")
    spec: Any = import_extra("bioimageio.spec.model.v0_5", _EXTRA)
    core: Any = import_extra("bioimageio.core", _EXTRA)
    saving: Any = import_extra("bioimageio.spec", _EXTRA)
    import_extra("loguru", _EXTRA).logger.disable("bioimageio")
    preprocessing, postprocessing = _scaling(processor, spec), _activation(model, spec)
    image = _simulated(model)
    expected = _probabilities(model, processor, image)
    with tempfile.TemporaryDirectory(prefix="stedfm-export-") as temporary:
        work = Path(temporary)
        write_graph(model, work / "model.onnx", {"weights_sha256": weights_sha256, "precision": "float32"})
        np.save(work / "test_image.npy", image)
        np.save(work / "test_probabilities.npy", expected)
        _cover(image[0, 0], expected[0]).save(work / "cover.png", optimize=True)
        (work / "documentation.md").write_text(_documentation(model, title), encoding="utf-8")
        description = _description(spec, work, model, title, preprocessing, postprocessing, licence)
        saving.save_bioimageio_package(description, output_path=folder / PACKAGE_FILE)
    _check(core, folder / PACKAGE_FILE)
    write_settings(model, folder)
    (folder / "README.md").write_text(
        _readme(model, title, licence) + render_about(name, weights_sha256), encoding="utf-8", newline="\n"
    )
    description = saving.load_model_description(folder / PACKAGE_FILE, format_version="latest")

    def packaged(images: torch.Tensor) -> dict[str, torch.Tensor]:
        sample = core.digest_spec.create_sample_for_model(description, inputs={_IMAGE: images.numpy()})
        with core.create_prediction_pipeline(description) as pipeline:
            # As in the check: otherwise the image would be mirrored at its borders before the model sees it.
            found = pipeline.predict_sample_without_blocking(
                sample, skip_input_padding=True, skip_output_cropping=True
            )
        return {_PROBABILITIES: torch.from_numpy(np.asarray(found.members[_PROBABILITIES].data))}

    return compare(
        lambda images: {_PROBABILITIES: torch.from_numpy(_probabilities(model, processor, images.numpy()))},
        packaged,
        [torch.from_numpy(image)],
    )


def _scaling(processor: StedFmImageProcessor, spec: Any) -> list[Any]:
    """Return the preprocessing that scales an image as the processor does."""
    clip = spec.ClipDescr(kwargs=spec.ClipKwargs(min=0.0, max=1.0))
    if processor.normalization in ("percentile", "minmax"):
        low, high = processor.percentiles if processor.normalization == "percentile" else (0, 100)
        # The smallest number that does not change the result: the limits are at least one grey value apart.
        percentiles = spec.ScaleRangeKwargs(
            axes=("y", "x"), min_percentile=float(low), max_percentile=float(high), eps=1e-12
        )
        return [spec.ScaleRangeDescr(kwargs=percentiles), clip]
    limits: Any = processor.intensity_range
    if processor.normalization == "fixed" and np.size(limits) == 2:
        low, high = map(float, np.ravel(limits))
        gain = 1 / (high - low)
        return [spec.ScaleLinearDescr(kwargs=spec.ScaleLinearKwargs(gain=gain, offset=-low * gain)), clip]
    raise UserError(
        f"--format bioimageio cannot express the scaling of this model ({processor.normalization}); it needs the "
        "normalization percentile or minmax, or fixed with one range for all channels"
    )


def _activation(model: StedFmPreTrainedModel, spec: Any) -> list[Any]:
    """Return the postprocessing that turns logits into probabilities."""
    activation = activation_of(model.config, "segmenter")
    if activation == "softmax":
        return [spec.SoftmaxDescr(kwargs=spec.SoftmaxKwargs(axis="channel"))]
    if activation == "sigmoid":
        return [spec.SigmoidDescr()]
    if activation == "clip":
        return [spec.ClipDescr(kwargs=spec.ClipKwargs(min=0.0, max=1.0))]
    raise UserError("--format bioimageio needs a model that segments classes; this one predicts other values")


def _description(
    spec: Any,
    work: Path,
    model: StedFmPreTrainedModel,
    title: str,
    preprocessing: list[Any],
    postprocessing: list[Any],
    licence: str | None,
) -> Any:
    """Return the description of the package of the files in a folder."""
    onnx: Any = import_extra("onnx", "onnx")
    config = model.config
    size, patch_size = config.image_size, config.patch_size
    halo = default_tile_overlap(size, patch_size) // 2
    lengths = spec.ParameterizedSize(min=size, step=patch_size)

    def of_input(axis: str) -> Any:
        return spec.SpaceInputAxis(id=axis, size=lengths)

    def of_output(axis: str) -> Any:
        same = spec.SizeReference(tensor_id=_IMAGE, axis_id=axis)
        return spec.SpaceOutputAxisWithHalo(id=axis, halo=halo, size=same)

    channels = [f"channel{number}" for number in range(config.num_channels)]
    classes = [str(config.id2label[number]) for number in range(config.num_labels)]
    return spec.ModelDescr(
        name="".join(each if each.isalnum() or each in "_- ()" else "_" for each in title)[:_MAX_NAME],
        description=f"Segments STED images: probabilities of {', '.join(classes)}.",
        covers=[spec.FileDescr(source=work / "cover.png")],
        documentation=spec.FileDescr(source=work / "documentation.md"),
        cite=[spec.CiteEntry(text=_TITLE, doi=_DOI)],
        license=_licence(licence, spec),
        tags=["sted", "super-resolution", "fluorescence-light-microscopy", "2d", "semantic-segmentation", "stedfm"],
        inputs=[
            spec.InputTensorDescr(
                id=_IMAGE,
                description="Intensities in any unit; they are scaled",
                axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=channels), of_input("y"), of_input("x")],
                test_tensor=spec.FileDescr(source=work / "test_image.npy"),
                data=spec.IntervalOrRatioDataDescr(type="float32"),
                preprocessing=preprocessing,
            )
        ],
        outputs=[
            spec.OutputTensorDescr(
                id=_PROBABILITIES,
                description="Probability of each class",
                axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=classes), of_output("y"), of_output("x")],
                test_tensor=spec.FileDescr(source=work / "test_probabilities.npy"),
                data=spec.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
                postprocessing=postprocessing,
            )
        ],
        weights=spec.WeightsDescr(
            onnx=spec.OnnxWeightsDescr(
                source=work / "model.onnx",
                opset_version=max(each.version for each in onnx.load(work / "model.onnx").opset_import),
            )
        ),
    )


def _check(core: Any, package: Path) -> None:
    """Check a package: the library loads it and runs it on its test image.

    Raises:
        UserError: If the check fails.
    """
    summary = core.test_model(package)
    if summary.status != "passed":
        errors = [error.msg for detail in summary.details for error in detail.errors]
        raise UserError(
            f"the package does not pass the check of bioimageio.core ({'; '.join(errors) or summary.status}); nothing "
            "was written. Report this as a bug"
        )


def _simulated(model: StedFmPreTrainedModel) -> np.ndarray:
    """Return a simulated image (1, C, H, W) float32 of the size of a crop; its channels are equal."""
    size = model.config.image_size
    settings = SimulationSettings(height=size, width=size)
    image = simulate_field(("rings", "puncta"), seed=0, index=0, settings=settings).image
    return np.repeat(image.astype(np.float32)[None, None], model.config.num_channels, axis=1)


@torch.no_grad()
def _probabilities(model: Any, processor: StedFmImageProcessor, images: np.ndarray) -> np.ndarray:
    """Return the probabilities (B, L, H, W) of this package for images (B, C, H, W)."""
    logits = model(**processor(list(images), return_tensors="pt")).logits
    return np.asarray(model.probabilities(logits).float().numpy())


def _cover(image: np.ndarray, probabilities: np.ndarray) -> Image.Image:
    """Return the image (H, W) next to its most probable classes (L, H, W) in colour."""
    low, high = float(image.min()), float(np.percentile(image, 99.8))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    names = [str(number) for number in range(len(probabilities))]
    palette = np.array([matplotlib.colors.to_rgb(colour) for colour in label_colours(names).values()])
    coloured = palette[probabilities.argmax(0)]
    both = np.concatenate([np.repeat(grey[..., None], 3, axis=2), coloured], axis=1)
    cover = Image.fromarray((both * 255).astype(np.uint8))
    factor = max(1, 256 // image.shape[0])
    return cover.resize((cover.width * factor, cover.height * factor), Image.Resampling.NEAREST)


def _documentation(model: StedFmPreTrainedModel, title: str) -> str:
    """Return the text of the package, Markdown."""
    config = model.config
    classes = ", ".join(str(config.id2label[number]) for number in range(config.num_labels))
    exclusive = "exclude each other" if config.target_type == "single_label" else "may overlap"
    return f"""# {title}

A STED-FM vision transformer with a decoder that segments super-resolution STED images. It returns the probability of
each class at every pixel: {classes}. The classes {exclusive}.

## Input

The image is scaled as a whole before it is cut into tiles. Tiles are multiples of {config.patch_size} pixels, at least
{config.image_size}; the border of each tile is discarded. `stedfm segment` blends overlapping tiles instead, so that
its probabilities differ slightly at the borders of tiles.

## Validation

The test image is simulated, and the cover shows it with the classes of the model. Compare the masks with masks that
you draw on your own images before you use the model, for example with `stedfm evaluate segmentation`.
"""


def _readme(model: StedFmPreTrainedModel, title: str, licence: str | None) -> str:
    """Return the README of the folder: how to open the package."""
    metadata = ModelCardData(
        license=licence, library_name="bioimageio", pipeline_tag="image-segmentation", tags=[*TAGS, "bioimage.io"]
    )
    return f"""---
{metadata.to_yaml()}
---

{_documentation(model, title)}
## Use

`{PACKAGE_FILE}` is a package of [bioimage.io](https://bioimage.io).

| program | how to open it |
|---|---|
| Fiji | *Plugins > DeepImageJ > DeepImageJ Install Model*, from a local file |
| ilastik | *Local Server (Neural Network Classification)*, drop the file |
| napari | the reader of `bioimageio.core`, or a plugin for bioimage.io |

In Python:

```python
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: onnxruntime sends usage data otherwise
import bioimageio.core
import numpy as np
import tifffile

image = tifffile.imread("cell.tif").astype(np.float32)
image = image.reshape(1, {model.config.num_channels}, *image.shape[-2:])
result = bioimageio.core.predict(model="{title}/{PACKAGE_FILE}", inputs={{"{_IMAGE}": image}}, blocksize_parameter=4)
probabilities = result.members["{_PROBABILITIES}"].data  # (1, classes, rows, columns)
```

Before you upload the package to bioimage.io, add its authors and maintainers to `rdf.yaml`.

"""


def _licence(licence: str | None, spec: Any) -> str | None:
    """Return the SPDX identifier of a licence of the Hub, which writes them in lower case; None if there is none."""
    spdx = get_args(spec.LicenseId.root_model.model_fields["root"].annotation)
    return next((each for each in spdx if licence is not None and each.lower() == licence.lower()), None)
