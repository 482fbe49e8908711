"""The network of a fine-tuning: where its weights are from, and which of them are trained (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from stedfm_hf.evaluation.labelled import LabelledImages
from stedfm_hf.inference.packaged import packaged_folder
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.runs import UserError
from stedfm_hf.training.classification.arguments import ModelArguments
from stedfm_hf.training.quick import own_randomness

TARGET_TYPES = {"classes": "single_label", "several": "multi_label", "regression": "regression"}
ADAPTED = ("qkv", "out_proj")
"""Layers of every block that get an adapter of low rank."""


def source_of(model: ModelArguments) -> str:
    """Folder or Hub id the weights are from; of an architecture its name."""
    return str(packaged_folder(model.model) or model.model)


def new_network(
    model: ModelArguments, data: LabelledImages, *, seed: int, images: Sequence[np.ndarray]
) -> StedFmForImageClassification:
    """The network before its first step: the encoder of a model, or a new one, and a new head.

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
    names = data.classes or ("value",)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    with own_randomness(seed):
        if model.mode == "from-scratch":
            network = StedFmForImageClassification(config)
            _standardise_input(network, images)
        else:
            network = _load(source_of(model), config)
            _draw_head(network)
        choose_trained(network, model)
    return network


def network_config(model: ModelArguments) -> StedFmConfig:
    """Architecture of the network.

    Raises:
        UserError: the model cannot be loaded, or is another kind.
    """
    if model.mode == "from-scratch" and model.model in ARCHITECTURES:
        return StedFmConfig(**ARCHITECTURES[model.model])
    try:
        config = AutoConfig.from_pretrained(source_of(model))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {model.model}: cannot be loaded ({reason}); give a folder, a Hub id or demo"
        ) from error
    if not isinstance(config, StedFmConfig):
        raise UserError(f"model {model.model}: is a {config.model_type}, not a STED-FM model")
    return config


def _load(source: str, config: StedFmConfig) -> StedFmForImageClassification:
    try:
        # The head of another task has other sizes: it is drawn anew, as ours always is.
        network = StedFmForImageClassification.from_pretrained(
            source, config=config, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model {source}: cannot be loaded ({reason}); give a folder, a Hub id or demo") from error
    return network


def _draw_head(network: StedFmForImageClassification) -> None:
    """A head that knows nothing, also where the model came with one: drawn as the model draws it."""
    network.batch_norm.reset_running_stats()
    bound = network.classifier.in_features**-0.5
    for parameter in network.classifier.parameters():
        torch.nn.init.uniform_(parameter, -bound, bound)


def _standardise_input(network: StedFmForImageClassification, images: Sequence[np.ndarray]) -> None:
    """Lets a new patch embedding see (x - mean) / std, as a pretraining begins: else it would learn from ripples."""
    pixels = [np.asarray(images[number], np.float64) for number in range(min(len(images), 512))]
    count = sum(image.size for image in pixels)
    mean = sum(float(image.sum()) for image in pixels) / count
    std = max((sum(float((image**2).sum()) for image in pixels) / count - mean**2) ** 0.5, 1e-3)
    embedding = network.stedfm.embeddings.patch_embeddings
    with torch.no_grad():
        embedding.weight.div_(std)
        embedding.bias.sub_(mean * embedding.weight.sum(dim=1))


def choose_trained(network: StedFmForImageClassification, model: ModelArguments) -> None:
    """Freezes what is not trained; for `lora` puts adapters beside the frozen matrices of every block.

    Raises:
        UserError: more blocks are asked for than there are.
    """
    blocks = network.stedfm.encoder.layers
    if model.mode in ("full", "from-scratch"):
        return
    network.stedfm.requires_grad_(False)
    if model.mode == "last-blocks":
        count = model.blocks or 0
        if count > len(blocks):
            raise UserError(f"blocks is {count}, but {model.model} has {len(blocks)}; give as many at most")
        for block in blocks[len(blocks) - count :]:
            block.requires_grad_(True)
        network.stedfm.norm.requires_grad_(True)
    if model.mode == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        pattern = rf"stedfm\.encoder\.layers\.\d+\..*\b({'|'.join(ADAPTED)})"
        config = LoraConfig(r=model.lora_rank, lora_alpha=2 * model.lora_rank, target_modules=pattern)
        inject_adapter_in_model(config, network)
        network.classifier.requires_grad_(True)  # peft freezes whatever is no adapter


def merge_adapters(network: StedFmForImageClassification) -> None:
    """Adds adapters to the matrices they stand beside: the network is an ordinary one again."""
    for name, module in list(network.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()
            network.set_submodule(name, module.get_base_layer())


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


def learning_rate_scale(name: str, layers: int, decay: float) -> float:
    """Share of the learning rate that a parameter has: `decay` less for every block it is away from the head.

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
    """Hub id, architecture or `demo`, or the name of the folder; no path."""
    return Path(model).resolve().name if Path(model).exists() else model
