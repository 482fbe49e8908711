"""Small pretrainings for the tests: crops that can be learned, how a run is started, and what came out of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stedfm_hf.runs import write_json
from stedfm_hf.training.checkpoints import checkpoint_folder
from stedfm_hf.training.curve import Curve
from stedfm_hf.training.pretrain import pretrain
from stedfm_hf.training.settings import RECIPES, PretrainSettings
from stedfm_hf.training.streamed_run import PretrainResult
from tests.command_words import settings_from
from tests.data.assembled import noisy_crop, write_repo

ROOT = Path(__file__).parents[2]
SCRIPT = "stedfm_hf/training/pretrain.py"
SHORT = (
    "--recipe 64-p8 --effective-batch-size 8 --logging-steps 2 --save-steps 4 --eval-steps 4 "
    "--max-steps 10 --device cpu"
)


def write_blobs(folder: Path, count: int = 60, *, seed: int = 0) -> Path:
    """A data set of blobs: something a network can learn in a few steps."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        y, x = rng.uniform(8, 56, 2)
        blob = 200 * np.exp(-((np.arange(64)[:, None] - y) ** 2 + (np.arange(64)[None] - x) ** 2) / 90)
        pixels = rng.poisson(blob + 5).clip(0, 255).astype(np.uint8)
        rows.append(noisy_crop(number, pixels=pixels, x=64 * (number % 2)))
    write_repo(folder, rows, rows_per_shard=8)
    return folder


def words_of(crops: Path | Sequence[str], output: Path, words: str = "") -> list[str]:
    """The words of a short pretraining; later ones count."""
    names = [str(crops)] if isinstance(crops, Path) else list(crops)
    return [*SHORT.split(), "--dataset", *names, "--output", str(output), *words.split()]


def run(crops: Path | Sequence[str], output: Path, words: str = "") -> PretrainResult:
    """A short pretraining in this process."""
    return pretrain.__wrapped__(parse(words_of(crops, output, words)))  # type: ignore[attr-defined]


def parse(words: Sequence[str]) -> PretrainSettings:
    """The settings that the command line makes of words."""
    return settings_from(PretrainSettings, words, recipes=RECIPES)


def launch(words: Sequence[str], *, processes: int = 2, script: str = SCRIPT, **environment: str) -> str:
    """A pretraining under torchrun; gives its progress lines."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    ended = subprocess.run(
        [*launcher, script, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stderr


def curve_of(output: Path) -> list[tuple[Any, ...]]:
    """Everything but the speed, to the last bit."""
    return [astuple(replace(row, images_per_second=None)) for row in Curve(output / "curve.csv").rows()]


def assert_same_weights(output: Path, wanted: Path) -> None:
    """Bit for bit."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (output, wanted))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def assert_same_losses(output: Path, wanted: Path) -> None:
    """Training and held-out losses of the same steps, but for the order in which float32 sums are taken."""
    ours, theirs = (Curve(folder / "curve.csv").rows() for folder in (output, wanted))
    for row, other in zip(ours, theirs, strict=True):
        assert (row.step, row.epoch, row.samples) == (other.step, other.epoch, other.samples)
        for loss, expected in ((row.loss, other.loss), (row.held_out_loss, other.held_out_loss)):
            assert loss == (None if expected is None else pytest.approx(expected, rel=1e-5))


def as_stopped(finished: Path, copy: Path, step: int) -> Path:
    """A copy of a finished run, as it was when it was stopped some time after a checkpoint that it kept."""
    copy.mkdir()
    for name in ("curve.csv", "recipe.yaml", "manifest.json"):
        shutil.copy(finished / name, copy)
    record = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    write_json(copy / "manifest.json", record | {"ended": None})
    shutil.copytree(checkpoint_folder(finished, step), checkpoint_folder(copy, step))
    return copy
