"""The network of a segmenter: the encoder of a model, or a new one, and a new decoder (ours)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.network import (
    DRAWN,
    choose_trained,
    load_weights,
    name_classes,
    network_config,
    standardise_input,
)
from stedfm_hf.training.network import own_randomness
from stedfm_hf.training.segmentation.arguments import ModelArguments


def new_network(
    model: ModelArguments, data: AnnotatedImages, *, seed: int, images: Iterable[np.ndarray]
) -> StedFmForSemanticSegmentation:
    """The network before its first step.

    Args:
        model: whose weights, which decoder, and which weights are trained.
        data: says what is predicted.
        seed: of the new weights.
        images: (C, H, W) each, what is trained on, read for a new encoder alone: it has their mean and spread folded
            into its patch embedding.

    Raises:
        UserError: the model cannot be loaded, or cannot have this decoder.
    """
    config = network_config(model)
    config.target_type = data.target_type
    config.decoder, config.segmentation_loss = model.decoder, model.segmentation_loss
    config.use_auxiliary_head = model.auxiliary
    # Not that of a decoder that the model may have come with.
    config.decode_head_hidden_size = model.decode_head_hidden_size
    name_classes(config, data.classes)
    try:
        config = type(config).from_dict(config.to_dict())  # checks the values together
        with own_randomness(seed):
            # The decoder knows nothing, also where the model came with one: only the encoder is taken from it.
            network = StedFmForSemanticSegmentation(config)
            if model.mode in DRAWN:
                standardise_input(network.stedfm, images)
            else:
                network.stedfm.load_state_dict(load_weights(StedFmModel, model, config).state_dict())
            choose_trained(network.stedfm, model)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"model {model.model}: {' '.join(str(error).split())}") from error
    if model.decoder == "unetr":
        # It takes the layers as they are: a parameter without a gradient would stop several processes.
        network.stedfm.norm.requires_grad_(False)
    return network
