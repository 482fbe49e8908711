"""The packaged directions are those of the attributes of the simulated crops, for the packaged encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stedfm_hf.data.simulation.attribute_set import simulate_attribute_set
from stedfm_hf.data.simulation.attributes import RANGES
from stedfm_hf.generation.demo_directions import fit_directions
from stedfm_hf.generation.direction import Direction
from stedfm_hf.weights.packaged import DIRECTIONS


def test_there_is_one_for_each_attribute_and_it_predicts_it() -> None:
    assert {folder.name for folder in DIRECTIONS.iterdir()} == set(RANGES)
    for name in RANGES:
        direction = Direction.load(DIRECTIONS / name)
        assert direction.name == name and len(direction) == 128
        assert direction.score is not None and direction.score.value > 0.8
        assert not np.allclose(direction.path, direction.normal) and direction.spread.size


def test_they_are_fitted_to_the_validation_crops(tmp_path: Path) -> None:
    simulate_attribute_set(tmp_path / "crops", counts={"train": 2, "validation": 20})
    folders = fit_directions(tmp_path / "crops", tmp_path / "directions")
    assert [Direction.load(folder).name for folder in folders] == list(RANGES)
    written = {each.name for folder in folders for each in folder.iterdir()}
    assert written == {"direction.json", "direction.safetensors"}
