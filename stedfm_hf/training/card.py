"""Model card of a pretrained model."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from huggingface_hub import DatasetCard
from transformers import TrainingArguments

from stedfm_hf.cards import PretrainedCardFacts, TrainingData, render_pretrained_card
from stedfm_hf.data.repository.files import SplitFiles, is_remote_folder
from stedfm_hf.data.repository.remote import RemoteFiles
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.curve import CURVE_FILE, CurveRow
from stedfm_hf.training.figures import CURVE, FIGURES, RECONSTRUCTIONS

CARD_FILE = "README.md"
_HUB = "hf://datasets/"
_SIMULATED_TAG = "synthetic"
_SETTINGS = (
    "effective_batch_size",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "warmup_steps",
    "weight_decay",
    "augment",
    "ema_decay",
    "protocol",
    "seed",
)
"""Settings of the recipe that are shown in the card."""
_FILES = {
    "recipe.yaml": "settings; to repeat: `stedfm pretrain --recipe recipe.yaml --dataset DATA --output NEW`",
    CURVE_FILE: "losses and evaluations of the training",
    "manifest.json": "versions, settings and data",
}


def write_card(
    folder: str | Path,
    model: StedFmForPreTraining,
    *,
    train: Sequence[SplitFiles],
    rows: Sequence[CurveRow],
    steps: int,
    samples: int,
    architecture: str,
    recipe: Mapping[str, Any],
    init_from: str | None = None,
    name: str | None = None,
    machine: str | None = None,
    precision: str | None = None,
    held_out_crops: int | None = None,
    licence: str | None = None,
) -> Path:
    """Write `README.md` into the folder of a pretrained model; call it last, because it shows the existing figures.

    Args:
        folder: Folder of the model.
        model: Masked autoencoder.
        train: Training splits.
        rows: Rows of the curve.
        steps: Number of optimiser steps.
        samples: Number of crops seen, of all processes together.
        architecture: Name of the architecture.
        recipe: Settings, as in `recipe.yaml`.
        init_from: Folder or Hub id of the model that the training started from; None for random weights.
        name: Name for loading the model, such as its Hub id; None for the name of the folder.
        machine: Description of the machine, see `describe_machine`.
        precision: Floating-point type of the training, such as `bfloat16`.
        held_out_crops: Number of crops of the evaluations in `rows`.
        licence: Licence of the weights as the Hub names it; None if it is not stated.

    Returns:
        Path of the card.
    """
    output = Path(folder)
    encoder = _count(model.stedfm)
    evaluations = [row for row in rows if row.held_out_loss is not None]
    last = evaluations[-1] if evaluations and evaluations[-1].step > 0 else None
    first = evaluations[0] if evaluations and evaluations[0].step == 0 else None
    speed, hours = speed_and_hours(rows, samples)
    figures = {name: f"{FIGURES}/{name}.png" for name in (CURVE, RECONSTRUCTIONS)}
    facts = PretrainedCardFacts(
        name=name or output.resolve().name,
        licence=licence,
        architecture=architecture,
        config=model.config.to_dict(),
        parameters={"encoder": encoder, "decoder": _count(model) - encoder},
        data=tuple(describe_data(files) for files in train),
        steps=steps,
        samples=samples,
        init_from=None if init_from is None else name_of(init_from),
        epochs=samples / train[0].rows if len(train) == 1 else None,
        hours=hours,
        images_per_second=speed,
        machine=machine,
        precision=precision,
        settings={name: recipe[name] for name in _SETTINGS if recipe.get(name) is not None},
        held_out_crops=held_out_crops if last else None,
        held_out_step=last.step if last else None,
        held_out_loss=last.held_out_loss if last else None,
        constant_loss=last.constant_loss if last else None,
        psnr=last.psnr if last else None,
        knn=last.knn if last else None,
        # With --init-from, the first evaluation is that of the other model.
        knn_untrained=first.knn if first and init_from is None else None,
        curve=figures[CURVE] if (output / figures[CURVE]).exists() else None,
        reconstructions=figures[RECONSTRUCTIONS] if (output / figures[RECONSTRUCTIONS]).exists() else None,
        files={name: what for name, what in _FILES.items() if (output / name).exists()},
    )
    with atomic_path(output / CARD_FILE) as temporary:
        temporary.write_text(render_pretrained_card(facts), encoding="utf-8", newline="\n")
    return output / CARD_FILE


def describe_data(files: SplitFiles) -> TrainingData:
    """Return the name of a data set without its path, and whether its card declares simulated images.

    Args:
        files: Files of the training split.
    """
    on_hub = not Path(files.repo).exists() and not is_remote_folder(files.repo)
    return TrainingData(name_of(files.repo), files.rows, _is_simulated(files, on_hub), on_hub)


def describe_machine(processes: int, device: torch.device) -> str:
    """Return kind and number of the devices, such as `2 x NVIDIA H100 80GB HBM3`, without the host name.

    Args:
        processes: Number of processes.
        device: Device of a process.
    """
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    many = f", {processes} processes" if processes > 1 else ""
    return f"CPU ({name}, {os.cpu_count()} cores{many})" if device.type == "cpu" else f"{device.type} ({name})"


def precision_of(arguments: TrainingArguments) -> str:
    """Return the floating-point type of a training.

    Args:
        arguments: Training arguments.
    """
    return "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32"


def name_of(location: str) -> str:
    """Return the Hub id without its revision, or the name of a folder.

    Args:
        location: Hub id, URL or folder.

    Example:
        >>> name_of("hf://datasets/lab/crops@v1")
        'lab/crops'
    """
    if Path(location).exists():
        return Path(location).resolve().name
    if is_remote_folder(location):
        return location.rstrip("/").rpartition("/")[2]
    return location.removeprefix(_HUB).rstrip("/").partition("@")[0]


def _is_simulated(files: SplitFiles, on_hub: bool) -> bool | None:
    """Return whether the tags of the dataset card declare simulated images; None without a card of this package."""
    try:
        if is_remote_folder(files.repo):
            card = DatasetCard(RemoteFiles(files.repo).read(f"{files.repo.rstrip('/')}/{CARD_FILE}").decode())
        elif on_hub:
            card = DatasetCard.load(name_of(files.repo), token=files.token)
        else:
            card = DatasetCard.load(Path(files.repo) / CARD_FILE)
    except Exception:  # no card, no front matter or no network
        return None
    tags = card.data.to_dict().get("tags") or []
    return True if _SIMULATED_TAG in tags else False if "stedfm" in tags else None


def speed_and_hours(rows: Sequence[Any], samples: int) -> tuple[float | None, float | None]:
    """Return the median speed in crops per second, and the hours of all steps; rows without speed use the median."""
    known = [row.images_per_second for row in rows if row.images_per_second]
    if not known:
        return None, None
    usual, seconds, before = median(known), 0.0, 0
    for row in rows:
        if row.loss is not None:
            seconds += (row.samples - before) / (row.images_per_second or usual)
            before = row.samples
    return usual, (seconds + (samples - before) / usual) / 3600.0


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
