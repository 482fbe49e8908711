"""What small fine-tunings of every task share: a model, the words of a run, its curve."""

from __future__ import annotations

from pathlib import Path

import torch

from stedfm_hf import StedFmForPreTraining
from stedfm_hf.training.curve import CURVE_FILE, CurveFile, FinetuneRow
from stedfm_hf.training.finetuning.summary import run_folder
from tests.models import tiny_config


def write_encoder(folder: Path) -> Path:
    """A masked autoencoder that knows nothing."""
    torch.manual_seed(0)
    StedFmForPreTraining(tiny_config()).save_pretrained(folder)
    return folder


def words_of(short: str, model: Path | str, data: Path, output: Path, words: str) -> list[str]:
    """The words of a fine-tuning; later ones count.

    Args:
        short: what makes it short.
        model: folder.
        data: folder.
        output: folder.
        words: of the test.
    """
    named = ["--model", str(model), "--dataset", str(data), "--output", str(output)]
    return [*short.split(), *named, *words.split()]


def curve_of(output: Path, seed: int = 42) -> list[FinetuneRow]:
    """The rows of a run."""
    return CurveFile(run_folder(output, seed) / CURVE_FILE, FinetuneRow).rows()
