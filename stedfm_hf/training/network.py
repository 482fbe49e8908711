"""Network of a pretraining before its first step."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from stedfm_hf.data.repository.files import SplitFiles
from stedfm_hf.data.streaming.stream import CropStream
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import UserError
from stedfm_hf.training.preparation import Preparation
from stedfm_hf.training.settings import PretrainSettings
from stedfm_hf.weights.damage import explained, refuse_missing

ADVICE = "give the folder or Hub id of a model to --init-from"
STATISTICS_CROPS = 2048
"""Number of training crops for the mean and standard deviation that standardise the input."""


def network_config(settings: PretrainSettings) -> StedFmConfig:
    """Return the configuration of the masked autoencoder.

    Args:
        settings: Settings of the pretraining.

    Raises:
        UserError: The model to start from cannot be loaded.
    """
    if settings.init_from is not None:
        _check_source(settings.init_from)
        with explained(settings.init_from, settings.init_from, ADVICE):
            return StedFmConfig.from_pretrained(settings.init_from)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    decoder = {f"decoder_{name}": getattr(settings, f"decoder_{name}") for name in names}
    given = {name: value for name, value in decoder.items() if value is not None}
    return StedFmConfig(
        **ARCHITECTURES[settings.architecture] | given,
        mask_ratio=settings.mask_ratio,
        norm_pix_loss=settings.norm_pix_loss,
    )


def new_network(settings: PretrainSettings, *, mean: float, std: float) -> StedFmForPreTraining:
    """Return the network before its first step: a given model, or one with random weights.

    Args:
        settings: Settings of the pretraining.
        mean: Mean intensity of the training crops.
        std: Standard deviation of their intensities.

    Raises:
        UserError: The model to start from cannot be loaded.
    """
    if settings.init_from is not None:
        with explained(settings.init_from, settings.init_from, ADVICE):
            network, loading = StedFmForPreTraining.from_pretrained(
                settings.init_from, dtype=torch.float32, output_loading_info=True
            )
        refuse_missing(settings.init_from, (n for n in loading["missing_keys"] if n.startswith("stedfm.")), ADVICE)
        return network
    config = network_config(settings)
    if settings.norm_pix_loss or not settings.standardise_input:
        with isolated_rng(settings.seed):
            return StedFmForPreTraining(config)
    return standardised_network(config, mean=mean, std=std, seed=settings.seed)


def standardised_network(config: StedFmConfig, *, mean: float, std: float, seed: int) -> StedFmForPreTraining:
    """Return a new network that standardises its input and initially predicts the mean.

    Args:
        config: Configuration, without `norm_pix_loss`.
        mean: Mean intensity.
        std: Standard deviation of the intensities.
        seed: Random seed of the weights.
    """
    with isolated_rng(seed):
        network = StedFmForPreTraining(config)
        torch.nn.init.normal_(network.decoder.head.weight, std=0.002)
    torch.nn.init.constant_(network.decoder.head.bias, mean)
    standardise_input(network.stedfm, mean, std)
    return network


def standardise_input(encoder: StedFmModel, mean: float, std: float) -> None:
    """Fold the standardisation (x - mean) / std into the patch embedding; the input of the model stays in [0, 1].

    Args:
        encoder: Encoder, changed in place.
        mean: Mean intensity.
        std: Standard deviation of the intensities.
    """
    embedding = encoder.embeddings.patch_embeddings
    with torch.no_grad():
        embedding.weight.div_(max(std, 1e-3))
        embedding.bias.sub_(mean * embedding.weight.sum(dim=1))


def pixel_statistics(files: SplitFiles, preparation: Preparation, seed: int) -> tuple[float, float]:
    """Return mean and standard deviation of the first training crops, scaled to [0, 1]; the same in all processes.

    Args:
        files: Training split.
        preparation: Preprocessing of the crops.
        seed: Random seed of the order of the crops.
    """
    size = min(256, files.rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the dropped crops are not those of the training
        stream = CropStream(
            files, batch_size=size, seed=seed, epoch=0, rank=0, world_size=1, drop_last=True, columns=(), workers=1
        )
    count, total, squares = 0, 0.0, 0.0
    for batch in stream:
        pixels = preparation(batch, epoch=0)["pixel_values"].double()
        count += pixels.numel()
        total, squares = total + float(pixels.sum()), squares + float((pixels**2).sum())
        if count >= STATISTICS_CROPS * pixels[0].numel():
            break
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block, and restore their generators afterwards.

    Args:
        seed: Random seed.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def unpartitioned_weights(arguments: TrainingArguments) -> Iterator[None]:
    """Switch off the partitioning of ZeRO-3 inside the block, so that models are created and loaded completely.

    Partitioning at this point would require the process group of DeepSpeed, which does not exist yet on CPUs. ZeRO-3
    partitions the model when training starts.

    Args:
        arguments: Training arguments.
    """
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if (config := getattr(arguments, "hf_deepspeed_config", None)) is not None:
            set_hf_deepspeed_config(config)


def _check_source(model: str) -> None:
    """Raise a UserError for a model that is neither a folder nor a Hub id."""
    if not Path(model).exists() and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model):
        raise UserError(f"--init-from {model}: no such folder; check the path (a Hub id is OWNER/NAME)")
