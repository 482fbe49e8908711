"""The network of a classifier: the encoder of a model, or a new one, and a new head (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.training.classification.arguments import ModelArguments
from stedfm_hf.training.finetuning.network import (
    choose_trained,
    load_weights,
    name_classes,
    network_config,
    standardise_input,
)
from stedfm_hf.training.network import own_randomness

TARGET_TYPES = {"classes": "single_label", "several": "multi_label", "regression": "regression"}


def new_network(
    model: ModelArguments, data: LabelledImages, *, seed: int, images: Sequence[np.ndarray]
) -> StedFmForImageClassification:
    """The network before its first step.

    Args:
        model: whose weights, and which of them are trained.
        data: says what is predicted.
        seed: of the new weights.
        images: what is trained on; a new encoder has their mean and spread folded into its patch embedding.

    Raises:
        UserError: the model cannot be loaded.
    """
    config = network_config(model)
    config.target_type = TARGET_TYPES[data.task]
    name_classes(config, data.classes or ("value",))
    with own_randomness(seed):
        if model.mode == "from-scratch":
            network = StedFmForImageClassification(config)
            standardise_input(network.stedfm, images)
        else:
            network = load_weights(StedFmForImageClassification, model, config)
            _draw_head(network)
        choose_trained(network.stedfm, model)
    return network


def _draw_head(network: StedFmForImageClassification) -> None:
    """A head that knows nothing, also where the model came with one: drawn as the model draws it."""
    network.batch_norm.reset_running_stats()
    bound = network.classifier.in_features**-0.5
    for parameter in network.classifier.parameters():
        torch.nn.init.uniform_(parameter, -bound, bound)


def set_head(
    network: StedFmForImageClassification,
    *,
    mean: Any,
    variance: Any,
    weight: Any | None = None,
    bias: Any | None = None,
) -> None:
    """Gives the head values that were found outside: what a feature is scaled by, and a linear layer behind it.

    Args:
        network: changed in place.
        mean: of every feature, (D,).
        variance: of every feature, (D,).
        weight: (L, D); None leaves the linear layer.
        bias: (L,).
    """
    with torch.no_grad():
        statistics = dict(network.batch_norm.named_buffers())
        statistics["running_mean"].copy_(torch.as_tensor(mean))
        statistics["running_var"].copy_(torch.as_tensor(variance))
        if weight is not None:
            network.classifier.weight.copy_(torch.as_tensor(weight))
            network.classifier.bias.copy_(torch.as_tensor(bias))
