from __future__ import annotations

from pathlib import Path

import pytest

from tests.figures import plotted_figures
from tests.training.finetuning.small import write_encoder
from tests.training.segmentation.small_segmentations import run, write_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def full(encoder: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds, all weights trained."""
    output = tmp_path_factory.mktemp("runs") / "full"
    with plotted_figures():
        run(encoder, scenes, output, "--seeds 42 43 --max_steps 40 --num-evaluations 2 --learning_rate 5e-3")
    return output
