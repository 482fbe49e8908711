"""Card of a fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stedfm_hf.cards.model_facts import CardResult, Head, ModelFacts, front_matter
from stedfm_hf.cards.rendering import render


@dataclass(frozen=True, kw_only=True)
class FinetunedCardFacts(ModelFacts):
    """Facts of the card of a fine-tuned model (see `ModelFacts`).

    Attributes:
        task: `classes`, `multilabel`, `regression` or `segmentation`.
        classes: Names of the classes; empty for a regression.
        target: Name of the number that a regression predicts.
        base: Name of the model that the training started from, or of the architecture.
        base_note: Note on that model.
        mode: Mode of the fine-tuning.
        mode_description: Trained weights, in a sentence.
        data: Name of the data set.
        simulated: Whether its images are simulated.
        split: Description of the splits, in sentences.
        images: Numbers of images of `train`, `validation` and, if it exists, `test`.
        sources: Numbers of source images, by split.
        images_per_class: Numbers of training images that show each class; empty for a regression.
        sampled: Whether the training images are a sample.
        metric_for_best_model: Validation metric that selected the best model.
        seeds: Seeds of all runs.
        best_seed: Seed of this model.
        best_step: Optimiser step of its weights.
        steps: Number of optimiser steps of its run.
        metrics: Mean and standard deviation over the seeds, and value of this model, by split and metric.
        class_metric: Name of the metric of `metric_per_class`, such as recall.
        metric_per_class: Metric of this model on `reported_split`, by class; None if undefined.
        limitations: Reasons why the metrics allow no conclusion, such as too few source images.
        failed: Reason by id of each image that could not be read.
        decoder: Description of the decoder of a segmentation model.
        reported_split: `test`, or `validation` without a test split.
        baselines: Values of `baseline_metric` on `reported_split` of logistic regressions on other features, by name.
        baseline_metric: Name of the metric of the baselines.
        settings: Settings of the training by name, without paths.
        machine: Description of the devices, without the host name.
        precision: Floating-point type of the training, such as `bfloat16`.
        figures: Paths of figures relative to the folder, by name.
    """

    task: str
    classes: tuple[str, ...]
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
    baselines: Mapping[str, float] = field(default_factory=dict)
    baseline_metric: str = "accuracy"
    settings: Mapping[str, Any] = field(default_factory=dict)
    machine: str | None = None
    precision: str | None = None
    figures: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Head:
        """Head of the model."""
        return "segmenter" if self.task == "segmentation" else "classifier"


def render_finetuned_card(facts: FinetunedCardFacts) -> str:
    """Render the card of a fine-tuned model.

    Args:
        facts: Facts of the card.

    Returns:
        Text of `README.md`.

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
    results = [
        CardResult(facts.data, facts.reported_split, name, round(best, 4))
        for name, (_, _, best) in facts.metrics.get(facts.reported_split, {}).items()
    ]
    data = front_matter(facts, tags=["synthetic"] * facts.simulated, results=results)
    return render("finetuned.md.jinja", data, facts=facts)
