"""Kinds of models: what a model predicts decides how it is exported."""

from __future__ import annotations

from typing import Any, Literal

from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification, StedFmModel, StedFmPreTrainedModel
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation

Kind = Literal["encoder", "pretraining", "classifier", "segmenter"]
CLASSES: dict[Kind, type[StedFmPreTrainedModel]] = {
    "encoder": StedFmModel,
    "pretraining": StedFmForPreTraining,
    "classifier": StedFmForImageClassification,
    "segmenter": StedFmForSemanticSegmentation,
}
"""Class of the models of every kind."""


def kind_of(model: StedFmPreTrainedModel) -> Kind:
    """Return the kind of a model.

    Raises:
        TypeError: If the class of the model is none of those of `CLASSES`.
    """
    for kind, of_kind in CLASSES.items():
        if isinstance(model, of_kind):
            return kind
    raise TypeError(f"a {type(model).__name__} cannot be exported; load one of {', '.join(CLASSES)}")


def encoder_of(model: StedFmPreTrainedModel) -> StedFmModel:
    """Return the encoder of a model; that of an encoder is the model itself."""
    encoder: Any = model.base_model
    assert isinstance(encoder, StedFmModel)
    return encoder


def architectures_of(config: Any) -> list[str]:
    """Return the class names in a configuration."""
    return [str(each) for each in config.architectures or []]


def kind_of_architectures(architectures: list[str]) -> Kind:
    """Return the kind of a model folder from the class names in its configuration; an encoder if they are unknown.

    Example:
        >>> kind_of_architectures(["StedFmForPreTraining"])
        'pretraining'
    """
    for kind, of_kind in CLASSES.items():
        if of_kind.__name__ in architectures:
            return kind
    return "encoder"
