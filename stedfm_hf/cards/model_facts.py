"""Facts that the cards of all models have in common, and the front matter made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData

from stedfm_hf.cards.rendering import MODEL_TAGS

Head = Literal["encoder", "classifier", "segmenter"]
TASKS: dict[Head, str] = {
    "encoder": "image-feature-extraction",
    "classifier": "image-classification",
    "segmenter": "image-segmentation",
}
"""`pipeline_tag` of the Hub by head."""


@dataclass(frozen=True)
class CardResult:
    """Result in the front matter of a card, which the Hub shows next to it.

    Attributes:
        dataset: Name of the data set.
        split: Split of the data set, such as `test`.
        metric: Name of the metric, such as `accuracy`.
        value: Value of the metric.
    """

    dataset: str
    split: str
    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts of the card of any model; facts that are None or empty are omitted from the card.

    Attributes:
        name: Title of the card and name of the model in the examples.
        config: Configuration with `image_size, patch_size, num_channels, hidden_size, num_hidden_layers,
            num_attention_heads`.
        parameters: Numbers of parameters of the encoder and of the head, by part.
        licence: Licence of the weights, as the Hub names it.
        licence_text: Sentence about the licence, instead of its name.
        pixel_size: Pixel size of the training images, in words.
        files: Descriptions of other files of the folder, by name.
    """

    name: str
    config: Mapping[str, Any]
    parameters: Mapping[str, int]
    licence: str | None = None
    licence_text: str | None = None
    pixel_size: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Head:
        """Head of the model."""
        return "encoder"

    @property
    def is_by_the_authors(self) -> bool:
        """Whether the weights are those of the authors of STED-FM."""
        return False


def front_matter(
    facts: ModelFacts,
    *,
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    results: Sequence[CardResult] = (),
) -> ModelCardData:
    """Return the front matter of the card of a model.

    Args:
        facts: Facts of the model.
        tags: Tags in addition to those of every model.
        datasets: Hub ids of the training data.
        results: Results for the `model-index` of the Hub.
    """
    task = TASKS[facts.head]
    evaluated: dict[str, Any] = {}
    if results:
        evaluated["model_name"] = facts.name
        evaluated["eval_results"] = [
            EvalResult(
                task_type=task,
                dataset_type=each.dataset,
                dataset_name=each.dataset,
                dataset_split=each.split,
                metric_type=each.metric,
                metric_value=each.value,
            )
            for each in results
        ]
    return ModelCardData(
        license=facts.licence,
        library_name="transformers",
        pipeline_tag=task,
        tags=[*MODEL_TAGS, *tags],
        datasets=list(datasets) or None,
        **evaluated,
    )
