"""The network of a fine-tuning: where its weights are from, and which of them are trained (ours)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from transformers import AutoConfig

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm import StedFmModel, StedFmPreTrainedModel
from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.arguments import WeightArguments
from stedfm_hf.weights.models import find_model
from stedfm_hf.weights.packaged import packaged_folder

Network = TypeVar("Network", bound=StedFmPreTrainedModel)

ADAPTED = ("qkv", "out_proj")
"""Layers of every block that get an adapter of low rank."""
DRAWN = ("from-scratch", "untrained")
"""Modes that begin from an encoder drawn at random."""


def source_of(model: WeightArguments) -> str:
    """Folder or Hub id the weights are from; of an architecture its name."""
    return str(packaged_folder(model.model) or model.model)


def network_config(model: WeightArguments) -> StedFmConfig:
    """Architecture of the network.

    Raises:
        UserError: the model cannot be loaded, or is another kind.
    """
    if model.mode in DRAWN and model.model in ARCHITECTURES:
        return StedFmConfig(**ARCHITECTURES[model.model])
    source = find_model(model.model).place
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {model.model}: cannot be loaded ({reason}); give a folder, a Hub id or demo"
        ) from error
    if not isinstance(config, StedFmConfig):
        raise UserError(f"model {model.model}: is a {config.model_type}, not a STED-FM model")
    return config


def name_classes(config: StedFmConfig, classes: Sequence[str]) -> None:
    """Gives a configuration the names of its classes."""
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}


def processor_of(config: StedFmConfig) -> StedFmImageProcessor:
    """What scales the images that the model is given later: as those that it is trained on, by the default."""
    return StedFmImageProcessor(patch_size=config.patch_size)


def load_weights(kind: type[Network], model: WeightArguments, config: StedFmConfig) -> Network:
    """A network with the encoder of a model; what it has no weights for is drawn.

    Raises:
        UserError: the model cannot be loaded.
    """
    source = source_of(model)
    try:
        # The head of another task has other sizes: it is drawn anew, as ours always is.
        return kind.from_pretrained(source, config=config, ignore_mismatched_sizes=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model {source}: cannot be loaded ({reason}); give a folder, a Hub id or demo") from error


def standardise_input(encoder: StedFmModel, images: Iterable[np.ndarray]) -> None:
    """Lets a new patch embedding see (x - mean) / std, as a pretraining begins: else it would learn from ripples.

    Args:
        encoder: new; changed in place.
        images: (C, H, W) each, what is trained on; the first 512 are looked at, one at a time.
    """
    sizes, sums, squares = [], [], []
    for image in islice(images, 512):
        pixels = np.asarray(image, np.float64)
        sizes.append(pixels.size)
        sums.append(float(pixels.sum()))
        squares.append(float((pixels**2).sum()))
    mean = sum(sums) / sum(sizes)
    std = max((sum(squares) / sum(sizes) - mean**2) ** 0.5, 1e-3)
    embedding = encoder.embeddings.patch_embeddings
    with torch.no_grad():
        embedding.weight.div_(std)
        embedding.bias.sub_(mean * embedding.weight.sum(dim=1))


def choose_trained(encoder: StedFmModel, model: WeightArguments) -> None:
    """Freezes what is not trained of an encoder; for `lora` puts adapters beside the frozen matrices of every block.

    Args:
        encoder: changed in place; heads are none of it, and always trained.
        model: says which.

    Raises:
        UserError: more blocks are asked for than there are.
    """
    blocks = encoder.encoder.layers
    if model.mode in ("full", "from-scratch"):
        return
    encoder.requires_grad_(False)
    if model.mode == "last-blocks":
        count = model.blocks or 0
        if count > len(blocks):
            raise UserError(f"blocks is {count}, but {model.model} has {len(blocks)}; give as many at most")
        for block in blocks[len(blocks) - count :]:
            block.requires_grad_(True)
        encoder.norm.requires_grad_(True)
    if model.mode == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        pattern = rf"encoder\.layers\.\d+\..*\b({'|'.join(ADAPTED)})"
        config = LoraConfig(r=model.lora_rank, lora_alpha=2 * model.lora_rank, target_modules=pattern)
        inject_adapter_in_model(config, encoder)


def merge_adapters(network: StedFmPreTrainedModel) -> None:
    """Adds adapters to the matrices they stand beside: the network is an ordinary one again."""
    for name, module in list(network.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()
            network.set_submodule(name, module.get_base_layer())


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
