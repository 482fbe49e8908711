"""The card of a pretrained model: what is known of the run, gathered for `stedfm_hf.cards`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from huggingface_hub import DatasetCard

from stedfm_hf.cards import PretrainedCardFacts, TrainingData, render_pretrained_card
from stedfm_hf.data.repository.files import SplitFiles
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
"""What of a recipe a reader of a card asks for; the rest is in the recipe."""
_FILES = {
    "recipe.yaml": "settings; `stedfm pretrain --recipe recipe.yaml --dataset DATA --output NEW` repeats it",
    CURVE_FILE: "the losses and checks of the whole training",
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
) -> Path:
    """Writes `README.md` into the folder of a pretrained model; goes last, for it shows the figures that are there.

    Args:
        folder: of the model.
        model: the masked autoencoder, for its configuration and its size.
        train: the splits it was trained on.
        rows: of the curve.
        steps: optimiser steps done.
        samples: crops seen, of all processes.
        architecture: name of the architecture.
        recipe: the settings, as they are in `recipe.yaml`.
        init_from: folder or Hub id of the model whose weights were the start.
        name: by which the model will be loaded, such as its id on the Hub; None takes that of the folder.
        machine: see :func:`describe_machine`.
        precision: "float32" or "bfloat16".
        held_out_crops: crops of the checks in `rows`.

    Returns:
        Path of the card.
    """
    output = Path(folder)
    encoder = _count(model.stedfm)
    checks = [row for row in rows if row.held_out_loss is not None]
    last = checks[-1] if checks and checks[-1].step > 0 else None
    first = checks[0] if checks and checks[0].step == 0 else None
    speed, hours = _speed_and_hours(rows, samples)
    pictures = {name: f"{FIGURES}/{name}.png" for name in (CURVE, RECONSTRUCTIONS)}
    facts = PretrainedCardFacts(
        name=name or output.resolve().name,
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
        # Of a model that began from another's weights it would be the accuracy of that one.
        knn_untrained=first.knn if first and init_from is None else None,
        curve=pictures[CURVE] if (output / pictures[CURVE]).exists() else None,
        reconstructions=pictures[RECONSTRUCTIONS] if (output / pictures[RECONSTRUCTIONS]).exists() else None,
        files={name: what for name, what in _FILES.items() if (output / name).exists()},
    )
    with atomic_path(output / CARD_FILE) as temporary:
        temporary.write_text(render_pretrained_card(facts), encoding="utf-8", newline="\n")
    return output / CARD_FILE


def describe_data(files: SplitFiles) -> TrainingData:
    """What the card of a data set says of it: its name without a path, and whether its images were computed."""
    on_hub = not Path(files.repo).exists()
    return TrainingData(name_of(files.repo), files.rows, _is_simulated(files, on_hub), on_hub)


def describe_machine(processes: int, device: torch.device) -> str:
    """Kind and number of the devices, such as `2 x NVIDIA H100 80GB HBM3`; no name of a host."""
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    many = f", {processes} processes" if processes > 1 else ""
    return f"CPU ({name}, {os.cpu_count()} cores{many})" if device.type == "cpu" else f"{device.type} ({name})"


def name_of(place: str) -> str:
    """Id on the Hub without its revision, or the last part of a path."""
    if Path(place).exists():
        return Path(place).resolve().name
    return place.removeprefix(_HUB).rstrip("/").partition("@")[0]


def _is_simulated(files: SplitFiles, on_hub: bool) -> bool | None:
    """As the tags of the data set's card say; None where there is no card of ours."""
    try:
        if on_hub:
            card = DatasetCard.load(name_of(files.repo), token=files.token)
        else:
            card = DatasetCard.load(Path(files.repo) / CARD_FILE)
    except Exception:  # no card, no front matter, no network: then it is not known
        return None
    tags = card.data.to_dict().get("tags") or []
    return True if _SIMULATED_TAG in tags else False if "stedfm" in tags else None


def _speed_and_hours(rows: Sequence[CurveRow], samples: int) -> tuple[float | None, float | None]:
    """Median of the crops a second, and the hours of all steps: of every row by its own speed, else by the median."""
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
