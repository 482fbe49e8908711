"""Small fine-tunings for the tests: images whose masks can be learned, and how a run is started."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from stedfm_hf.training.finetuning.settings import SegmentationSettings
from stedfm_hf.training.finetuning.task import FinetuneResult
from stedfm_hf.training.segment import finetune_segmentation
from tests.command_words import settings_from
from tests.training.finetuning import small

SCRIPT = "stedfm_hf/training/segment.py"
SHORT = "--max-steps 8 --effective-batch-size 4 --num-evaluations 4 --learning-rate 2e-3 --overlays 1 --device cpu"
SPLITS = {"train": 10, "validation": 4, "test": 4}


def draw_scene(number: int, shape: tuple[int, int] = (40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """An image uint16 of a bright square (1) and a bright line (2) in noise, and its mask."""
    rng = np.random.default_rng(number)
    mask = np.zeros(shape, np.uint8)
    top, left = rng.integers(2, shape[0] - 14), rng.integers(2, shape[1] // 2 - 10)
    mask[top : top + 10, left : left + 10] = 1
    column = rng.integers(shape[1] // 2 + 2, shape[1] - 4)
    mask[:, column : column + 3] = 2
    return rng.poisson(20 + 60 * (mask > 0)).astype(np.uint16), mask


def write_scenes(folder: Path, shape: tuple[int, int] = (40, 48), planes: bool = False) -> Path:
    """Splits of images and masks: numbers of classes, or a plane for each class, where the two overlap."""
    number = 0
    for split, count in SPLITS.items():
        for _ in range(count):
            image, mask = draw_scene(number, shape)
            stack = np.stack([mask == 1, mask > 0]).astype(np.uint8)
            for kind, array in (("images", image), ("masks", stack if planes else mask)):
                file = folder / kind / split / f"cell_{number}.tif"
                file.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(file, array, photometric="minisblack")
            number += 1
    return folder


def words_of(model: Path | str, data: Path, output: Path, words: str = "") -> list[str]:
    """The words of a short fine-tuning; later ones count."""
    return small.words_of(SHORT, model, data, output, words)


def run(model: Path | str, data: Path, output: Path, words: str = "") -> FinetuneResult:
    """A short fine-tuning in this process."""
    settings = settings_from(SegmentationSettings, words_of(model, data, output, words))
    return finetune_segmentation.__wrapped__(settings)  # type: ignore[attr-defined]
