"""Small fine-tunings for the tests: images whose classes can be learned, a model, and how a run is started."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stedfm_hf.training.classify import finetune_classification
from stedfm_hf.training.finetuning.settings import ClassificationSettings
from stedfm_hf.training.finetuning.task import FinetuneResult
from tests.command_words import settings_from
from tests.data.assembled import noisy_crop, write_repo
from tests.training.finetuning import small

SCRIPT = "stedfm_hf/training/classify.py"
SHORT = "--max-steps 12 --effective-batch-size 8 --num-evaluations 4 --learning-rate 2e-3 --device cpu"


def draw_image(kind: str, size: float, number: int) -> np.ndarray:
    """A ring or a dot (40, 40) uint8 somewhere in noise."""
    rng = np.random.default_rng(number)
    y, x = rng.uniform(14, 26, 2)
    distance = np.hypot(np.arange(40)[:, None] - y, np.arange(40)[None] - x)
    signal = 40 * np.exp(-((distance - (size if kind == "rings" else 0)) ** 2) / 8)
    return rng.poisson(signal + 12).clip(0, 255).astype(np.uint8)


def write_crops(folder: Path, count: int = 96) -> Path:
    """Crops of two classes, with a number to predict (`size`) and several classes at once (`parts`)."""
    rows = []
    for number in range(count):
        source = number // 2
        kind, size = ("rings", "dots")[source % 2], 4.0 + 0.25 * (source % 13)
        parts = [kind] if source % 3 else [kind, "large"] if size > 5.5 else []
        rows.append(
            noisy_crop(
                number,
                pixels=draw_image(kind, size, number),
                x=40 * (number % 2),
                label=kind,
                metadata={"size": size, "parts": parts},
            )
        )
    write_repo(folder, rows, rows_per_shard=16)
    return folder


def words_of(model: Path | str, data: Path, output: Path, words: str = "") -> list[str]:
    """The words of a short fine-tuning; later ones count."""
    return small.words_of(SHORT, model, data, output, words)


def run(model: Path | str, data: Path, output: Path, words: str = "") -> FinetuneResult:
    """A short fine-tuning in this process."""
    settings = settings_from(ClassificationSettings, words_of(model, data, output, words))
    return finetune_classification.__wrapped__(settings)  # type: ignore[attr-defined]
