"""Small trainings of diffusion models for the tests: how a run is started, and what came out of it."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from stedfm_hf.training.curve import CURVE_FILE, CurveFile
from stedfm_hf.training.generate import pretrain_generation
from stedfm_hf.training.generation.curve import GenerationRow
from stedfm_hf.training.generation.settings import RECIPES, GenerationSettings
from stedfm_hf.training.streamed_run import PretrainResult
from tests.command_words import settings_from

SHORT = (
    "--model demo --patch-size 8 --base-channels 8 --channel-multipliers 1 --effective-batch-size 8 --logging-steps 2 "
    "--save-steps 4 --eval-steps 4 --max-steps 8 --evaluation-images 4 --evaluation-steps 2 --learning-rate 2e-3 "
    "--device cpu"
)


def words_of(crops: Path, output: Path, words: str = "") -> list[str]:
    """The words of a short training; later ones count."""
    return [*SHORT.split(), "--dataset", str(crops), "--output", str(output), *words.split()]


def parse(words: list[str]) -> GenerationSettings:
    """The settings that the command line makes of words."""
    return settings_from(GenerationSettings, words, recipes=RECIPES)


def run(crops: Path, output: Path, words: str = "") -> PretrainResult:
    """A short training in this process."""
    return pretrain_generation.__wrapped__(parse(words_of(crops, output, words)))  # type: ignore[attr-defined]


def rows_of(output: Path) -> list[GenerationRow]:
    """The rows of the curve."""
    return CurveFile(output / CURVE_FILE, GenerationRow).rows()


def curve_of(output: Path) -> list[tuple[Any, ...]]:
    """Everything but the speed, to the last bit."""
    return [astuple(replace(row, images_per_second=None)) for row in rows_of(output)]
