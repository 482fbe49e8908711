from __future__ import annotations

from pathlib import Path

import pytest

from tests.figures import plotted_figures
from tests.training.classification.small_runs import run, write_crops
from tests.training.finetuning.small import write_encoder


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_crops(tmp_path_factory.mktemp("data") / "crops")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def full(encoder: Path, crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds, all weights trained."""
    output = tmp_path_factory.mktemp("runs") / "full"
    with plotted_figures():
        run(encoder, crops, output, "--mode full --seeds 42 43")
    return output
