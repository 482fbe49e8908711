"""The card of a model that was trained here for a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCardData

from stedfm_hf.cards.rendering import MODEL_TAGS, render


@dataclass(frozen=True)
class FinetunedCardFacts:
    """What a card says of a fine-tuning; what is None or empty is not known, and nothing is said of it.

    Args:
        name: title of the card and name of the folder in the examples.
        task: `classes`, `several` (classes at once), `regression` or `segmentation`.
        classes: their names; empty for a regression.
        target: what a regression predicts.
        config: fields of the configuration, as for `CardFacts`.
        parameters: parameters of the encoder and of the head.
        base: name of the model whose weights were the start, or, from scratch, whose architecture was taken.
        base_note: what must be said of it.
        mode: of the fine-tuning.
        mode_description: what was trained, in a sentence.
        data: name of the data set.
        simulated: whether its images were computed.
        split: How the splits were made, in sentences.
        images: images of `train`, `validation` and, if there is one, `test`.
        sources: source images, likewise.
        images_per_class: training images that show each class; empty for a regression.
        sampled: whether these are only some of those there are.
        metric_for_best_model: validation figure of the best model.
        seeds: of all runs.
        best_seed: of this model.
        best_step: optimiser step of its weights.
        steps: optimiser steps of its run.
        metrics: by side and figure: mean and standard deviation over the seeds, and the value of this model.
        class_metric: what `metric_per_class` is, such as recall.
        metric_per_class: figure of each class of this model, on `shown`; None where it has no value.
        limitations: why the figures allow no conclusion, such as too few source images.
        failed: images that could not be read, with the reason.
        decoder: of a segmentation, in words.
        reported_split: `test`, or `validation` where there is none.
        settings: of the training, by name; no paths.
        machine: what computed it; no name of a host.
        precision: `float32` or `bfloat16`.
        figures: paths inside the folder, by name.
        files: other files of the folder, with a word each.
        licence: identifier of the terms of the weights.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    config: Mapping[str, Any]
    parameters: Mapping[str, int]
    base: str
    mode: str
    mode_description: str
    data: str
    split: str
    images: Mapping[str, int]
    sources: Mapping[str, int]
    metric_for_best_model: str
    seeds: tuple[int, ...]
    best_seed: int
    best_step: int | None
    steps: int
    metrics: Mapping[str, Mapping[str, tuple[float, float | None, float]]]
    reported_split: str
    limitations: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = False
    target: str | None = None
    base_note: str | None = None
    images_per_class: Mapping[str, int] = field(default_factory=dict)
    sampled: bool = False
    class_metric: str = "recall"
    metric_per_class: Mapping[str, float | None] = field(default_factory=dict)
    decoder: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    machine: str | None = None
    precision: str | None = None
    figures: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None


def render_finetuned_card(facts: FinetunedCardFacts) -> str:
    """Writes the card of a model that was trained here.

    Example:
        >>> config = {"image_size": 64, "patch_size": 8, "num_channels": 1, "hidden_size": 128}
        >>> config |= {"num_hidden_layers": 8, "num_attention_heads": 4}
        >>> card = render_finetuned_card(
        ...     FinetunedCardFacts(
        ...         name="my-classifier",
        ...         task="classes",
        ...         classes=("actin", "tubulin"),
        ...         config=config,
        ...         parameters={"encoder": 1603200, "head": 258},
        ...         base="demo",
        ...         mode="linear-probe",
        ...         mode_description="only the head was trained",
        ...         data="my-crops",
        ...         split="The splits are those of the data set.",
        ...         images={"train": 100, "validation": 20},
        ...         sources={"train": 10, "validation": 2},
        ...         metric_for_best_model="balanced_accuracy",
        ...         seeds=(42,),
        ...         best_seed=42,
        ...         best_step=10,
        ...         steps=20,
        ...         metrics={"validation": {"accuracy": (0.9, None, 0.9)}},
        ...         reported_split="validation",
        ...     )
        ... )
        >>> "There is no test split" in card, "accuracy | 0.9000" in card
        (True, True)
    """
    data = ModelCardData(
        license=facts.licence,
        library_name="transformers",
        pipeline_tag="image-segmentation" if facts.task == "segmentation" else "image-classification",
        tags=[*MODEL_TAGS, *["synthetic"] * facts.simulated],
    )
    return render("finetuned_card.md.jinja", data, facts=facts)
