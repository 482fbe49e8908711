"""What a pretraining step costs, counted and not timed: operations of a crop, bytes over the network."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining

GRADIENT_BYTES = 4
"""Of a parameter: weights and their gradients are float32 with autocast, too."""


def step_operations(config: StedFmConfig) -> int:
    """Floating-point operations of the matrix products of one crop, forward and backward, as torch counts them.

    A multiplication and an addition are two. Attention is written out for it: what a fused kernel computes twice, to
    save memory, is no work of the model. Elementwise operations and the optimiser are not counted.
    """
    # As `train` leaves it: the batch plays no part, so one crop will do.
    model = StedFmForPreTraining._from_config(copy.deepcopy(config), attn_implementation="eager").train()
    pixels = torch.zeros(1, config.num_channels, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter:
        model(pixels, noise=torch.rand(1, _patches(config))).loss.backward()
    return int(counter.get_total_flops())


def derived_operations(config: StedFmConfig) -> int:
    """The same by hand, from the sizes alone: three times the forward pass, but for the first layer.

    Every product needs as much again for the gradient of its weights, and for that of its input; the pixels need none.
    """
    patches = _patches(config)
    kept = int(patches * (1 - config.mask_ratio))
    masked, values = patches - kept, config.patch_size**2 * config.num_channels
    width, narrow = config.hidden_size, config.decoder_hidden_size
    embedding = _linear(kept, values, width)
    encoder = config.num_hidden_layers * _layer(1 + kept, 1 + kept, width, config.intermediate_size)
    # Of the decoder's last layer only the hidden patches are read.
    inner, tokens = config.decoder_intermediate_size, 1 + patches
    decoder = (config.decoder_num_hidden_layers - 1) * _layer(tokens, tokens, narrow, inner)
    decoder += _linear(1 + kept, width, narrow) + _layer(tokens, masked, narrow, inner)
    decoder += _linear(masked, narrow, values)
    return 3 * (embedding + encoder + decoder) - embedding


def all_reduce_bytes(parameters: int, devices: int) -> float:
    """Bytes that every device sends (and receives) to sum the gradients of a step around a ring."""
    return 2 * (devices - 1) / devices * GRADIENT_BYTES * parameters


def _patches(config: StedFmConfig) -> int:
    return (config.image_size // config.patch_size) ** 2


def _linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def _layer(tokens: int, asking: int, width: int, inner: int) -> int:
    """A transformer layer in which `asking` of the tokens attend to all and are updated."""
    attention = 2 * _linear(asking, width, tokens)
    mlp = _linear(asking, width, inner) + _linear(asking, inner, width)
    return _linear(tokens, width, 3 * width) + attention + _linear(asking, width, width) + mlp
