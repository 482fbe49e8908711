"""Network of a fine-tuning: initial weights, and the selection of the weights to train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from transformers import AutoConfig

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.modeling_stedfm import StedFmModel, StedFmPreTrainedModel
from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.settings import NEW_ENCODER, FinetuneSettings
from stedfm_hf.training.network import standardise_input
from stedfm_hf.weights.damage import explained, refuse_missing
from stedfm_hf.weights.packaged import packaged_folder

Network = TypeVar("Network", bound=StedFmPreTrainedModel)

ADVICE = "give a folder, a Hub id or `demo`"
ADAPTED = ("qkv", "out_proj")
"""Layers of every block that get a low-rank adapter."""
STATISTICS_IMAGES = 512
"""Number of training images for the mean and standard deviation that standardise the input of a new encoder."""


def source_of(settings: FinetuneSettings) -> str:
    """Return the folder or Hub id of the model, or the name of the architecture.

    Args:
        settings: Settings of the fine-tuning.
    """
    return str(packaged_folder(settings.model) or settings.model)


def network_config(settings: FinetuneSettings, classes: Sequence[str] = ()) -> StedFmConfig:
    """Return the configuration of the network.

    Args:
        settings: Settings of the fine-tuning.
        classes: Names of the classes.

    Raises:
        UserError: The model cannot be loaded, or is not a STED-FM model.
    """
    if settings.mode in NEW_ENCODER and settings.model in ARCHITECTURES:
        config = StedFmConfig(**ARCHITECTURES[settings.model])
    else:
        with explained(str(settings.model), source_of(settings), ADVICE):
            config = AutoConfig.from_pretrained(source_of(settings))
        if not isinstance(config, StedFmConfig):
            raise UserError(f"model {settings.model}: is a {config.model_type}, not a STED-FM model")
    if classes:
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: number for number, name in enumerate(classes)}
    return config


def load_weights(kind: type[Network], settings: FinetuneSettings, config: StedFmConfig) -> Network:
    """Return a network with the encoder of a model, and a randomly initialised head.

    Args:
        kind: Class of the network.
        settings: Settings of the fine-tuning.
        config: Configuration of the network.

    Raises:
        UserError: The model cannot be loaded.
    """
    with explained(str(settings.model), source_of(settings), ADVICE):
        # The head of another task may have other sizes; it is replaced anyway.
        network, loading = kind.from_pretrained(
            source_of(settings),
            config=config,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    lost = {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}
    heads = ("classifier.", "decode_head.", "decoder.")
    refuse_missing(str(settings.model), (name for name in lost if not name.startswith(heads)), ADVICE)
    return network


def standardise_by(encoder: StedFmModel, images: Iterable[np.ndarray]) -> None:
    """Standardise the input of a new encoder, as at the start of a pretraining.

    Args:
        encoder: New encoder, changed in place.
        images: Training images (C, H, W); the first ones are read, one at a time.
    """
    sizes, sums, squares = [], [], []
    for image in islice(images, STATISTICS_IMAGES):
        pixels = np.asarray(image, np.float64)
        sizes.append(pixels.size)
        sums.append(float(pixels.sum()))
        squares.append(float((pixels**2).sum()))
    mean = sum(sums) / sum(sizes)
    standardise_input(encoder, mean, (sum(squares) / sum(sizes) - mean**2) ** 0.5)


def choose_trained(encoder: StedFmModel, settings: FinetuneSettings) -> None:
    """Freeze the weights of an encoder that the mode does not train; for `lora`, add adapters to every block.

    Args:
        encoder: Encoder, changed in place.
        settings: Settings of the fine-tuning.

    Raises:
        UserError: The encoder has fewer blocks than requested.
    """
    blocks = encoder.encoder.layers
    if settings.mode in ("full", "from-scratch"):
        return
    encoder.requires_grad_(False)
    if settings.mode == "last-blocks":
        count = settings.blocks or 0
        if count > len(blocks):
            raise UserError(f"--blocks {count}: {settings.model} has only {len(blocks)} blocks")
        for block in blocks[len(blocks) - count :]:
            block.requires_grad_(True)
        encoder.norm.requires_grad_(True)
    if settings.mode == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        pattern = rf"encoder\.layers\.\d+\..*\b({'|'.join(ADAPTED)})"
        rank = settings.lora_rank
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=pattern), encoder)


def merge_adapters(network: StedFmPreTrainedModel) -> None:
    """Merge the low-rank adapters into the weights.

    Args:
        network: Network, changed in place.
    """
    for name, module in list(network.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()
            network.set_submodule(name, module.get_base_layer())


def learning_rate_scale(name: str, layers: int, decay: float) -> float:
    """Return the factor of the learning rate of a parameter: `decay` to the power of its distance from the head.

    Args:
        name: Name of the parameter.
        layers: Number of blocks of the encoder.
        decay: Factor from a block to the previous one.

    Example:
        >>> [learning_rate_scale(name, 2, 0.5) for name in ("classifier.bias", "stedfm.encoder.layers.1.norm1.bias")]
        [1.0, 0.5]
        >>> learning_rate_scale("stedfm.embeddings.cls_token", 2, 0.5)
        0.125
    """
    if name.startswith("stedfm.encoder.layers."):
        return decay ** (layers - int(name.split(".")[3]))
    return decay ** (layers + 1) if name.startswith("stedfm.embeddings.") else 1.0


def name_of_model(model: str) -> str:
    """Return the name of a model without its path: Hub id, architecture, `demo`, or name of the folder.

    Args:
        model: Hub id, architecture, `demo` or folder.
    """
    return Path(model).resolve().name if Path(model).exists() else model
