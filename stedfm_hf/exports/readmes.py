"""README of an exported model: how to prepare images, and the code that loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCardData

from stedfm_hf import cards
from stedfm_hf.exports.comparing import Comparison
from stedfm_hf.exports.kinds import Kind
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.weights.packaged import PACKAGED

LIBRARIES = {"transformers": "transformers", "timm": "timm", "onnx": "ONNX", "openvino": "OpenVINO"}
"""Name of the library by format; the format is the `library_name` of the Hub."""
AUTO_CLASSES: dict[Kind, str] = {
    "encoder": "AutoModel",
    "pretraining": "AutoModelForPreTraining",
    "classifier": "AutoModelForImageClassification",
}
"""Auto class of transformers by kind of model."""
TASKS: dict[Kind, str] = {
    "encoder": "image-feature-extraction",
    "pretraining": "image-feature-extraction",
    "classifier": "image-classification",
    "segmenter": "image-segmentation",
}
"""`pipeline_tag` of the Hub by kind of model."""
TAGS = ["microscopy", "sted", "stedfm"]
_FOLDERS = [Path(__file__).parent, Path(cards.__file__).parent]
_TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDERS), trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True)
class ReadmeFacts:
    """Facts of the README of an export.

    Attributes:
        title: Name of the export.
        name: Name of the model.
        weights_sha256: SHA-256 of the weights of the model.
        format: Format of the export.
        kind: Kind of the model.
        class_name: Class or kind in the format.
        precision: Precision of the export.
        image_size: Image size of the position table, in pixels.
        config: Configuration of the model.
        processor: Image processor of the model.
        comparison: Differences between both models.
        licence: Licence of the weights, or None if it is unknown.
    """

    title: str
    name: str
    weights_sha256: str
    format: str
    kind: Kind
    class_name: str
    precision: str
    image_size: int
    config: StedFmConfig
    processor: StedFmImageProcessor
    comparison: Comparison
    licence: str | None = None


def render_readme(facts: ReadmeFacts) -> str:
    """Return the text of `README.md`, with a front matter for the Hub."""
    kind: Kind = "encoder" if facts.kind == "pretraining" and facts.format != "transformers" else facts.kind
    metadata = ModelCardData(license=facts.licence, library_name=facts.format, pipeline_tag=TASKS[kind], tags=TAGS)
    config: Any = facts.config
    description = facts.comparison.describe()
    name, note = _name_and_note(facts.name)
    text = _TEMPLATES.get_template("readme.md.jinja").render(
        metadata=metadata.to_yaml(),
        facts=facts,
        name=name,
        note=note,
        weights_sha256=facts.weights_sha256,
        kind=kind,
        library=LIBRARIES[facts.format],
        description=description[0].upper() + description[1:],
        is_fixed=facts.format in ("transformers", "timm"),
        channels="with one channel" if config.num_channels == 1 else f"with {config.num_channels} channels",
        scaling=_scaling(facts.processor),
        auto_class=AUTO_CLASSES.get(kind),
        config=config,
        labels=[str(config.id2label[number]) for number in range(config.num_labels)],
        processor=facts.processor,
        activation=activation_of(facts.config, kind),
    )
    return text.rstrip() + "\n"


def render_about(name: str, weights_sha256: str) -> str:
    """Return the last sections of a README: training, limitations and citation.

    Args:
        name: Name of the model.
        weights_sha256: SHA-256 of the weights of the model.
    """
    return _TEMPLATES.get_template("about.md.jinja").render(
        name=_name_and_note(name)[0], weights_sha256=weights_sha256
    )


def _name_and_note(name: str) -> tuple[str, str | None]:
    """Split the name of a packaged model, such as `demo (trained on ...)`; other models have no note."""
    notes = {f"{short} ({note})": (short, note) for short, note in PACKAGED.items()}
    return notes.get(name, (name, None))


def _scaling(processor: StedFmImageProcessor) -> str:
    """Return how the processor scales images, in a sentence."""
    ways = {
        "percentile": "Scale every image to [0, 1] by its own percentiles {} and {}.".format(*processor.percentiles),
        "minmax": "Scale every image to [0, 1] by its own minimum and maximum.",
        "fixed": f"Scale images so that the intensities {processor.intensity_range} become 0 and 1.",
        "none": "Divide integer images by the largest value of their type; float images are in [0, 1] already.",
    }
    return f"{ways[processor.normalization]} Read 16-bit files as 16 bit, not through an 8-bit picture."


def activation_of(config: StedFmConfig, kind: Kind) -> str:
    """Return how logits become predictions: softmax, sigmoid, clip or logits; empty for a model without a head.

    Args:
        config: Configuration of the model.
        kind: Kind of the model.
    """
    target_type = config.target_type
    if kind in ("encoder", "pretraining"):
        return ""
    if kind == "segmenter":
        # The rules are those of the class, and need no weights.
        import torch

        with torch.device("meta"):
            model = StedFmForSemanticSegmentation(config)
        if target_type == "regression":
            return "logits"
        if model._loss != "mse" and target_type == "single_label":
            return "softmax"
        return "clip" if model._is_plain else "sigmoid"
    return {"regression": "logits", "multi_label": "sigmoid"}.get(target_type, "softmax")
