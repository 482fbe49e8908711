"""The frozen presets do not change, are the same on every machine, and brightness does not reveal their classes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.data import simulate_field
from stedfm_hf.data.simulation.benchmark_v1 import BENCHMARK_V1, BENCHMARK_V1_SCENES, Preset, find_preset
from stedfm_hf.data.simulation.simulate import simulate
from stedfm_hf.runs import UserError

FROZEN = (
    "benchmark-v1 is frozen: every accuracy table of the project is measured on it. Undo the change, or add a "
    "benchmark-v2. If a new NumPy version samples other random numbers from the same seed, document it in "
    "docs/how-to/simulate.md and keep the old version for the benchmark."
)
DEFINITION = "79e9b38b52cc66bbe8f75ff44c6844cf010039ae5eea809042f436f837e118ce"
FIRST_OF_TEST = {
    "rings": "0eafe2fe92a5de8ea9b2c311f1d03a4b3089180b283a7d76a0e41d42da2e63c6",
    "fibres": "cdc02924cd4b0314965d32d3cd1497b7c28ee7069d8db8777d30af244974230d",
    "microtubules": "3022be72719caa059e72281838183ff9e496c9768e5c43f8112d9ddb6d06c731",
    "puncta": "0e7c17f7a0494f79e491b3fe53400755fd34a2c0d162e194b201c91fb2e8d309",
    "clusters": "1139589d37cd091e74d367a9b730add94b86f73add27bc9eb7cd09a661011f2b",
    "mitochondria": "08f6473d316a74bc5474d5af6248308f4ba260e4f1623bcc5f9f3625416a843a",
    "polymer_rings": "e9ea02e16ba607fd3b5b721daa6a51daa0420f19de74d6a043be3e73c21392bd",
}
"""SHA-256 of the counts (little-endian uint16) and the mask of field 350, the first test field, of every structure."""

SCENES_DEFINITION = "59de404d175690b07019937f72fa98f5b43c3503e0434265fe18bf17c6a59fc0"


def fingerprint(structure: str) -> str:
    field = simulate_field(structure, seed=BENCHMARK_V1.seed, index=350, settings=BENCHMARK_V1.settings)
    return hashlib.sha256(field.image.astype("<u2").tobytes() + field.mask.tobytes()).hexdigest()


def definition_sha256(preset: Preset) -> str:
    record = {each.name: getattr(preset, each.name) for each in fields(preset)}
    if not preset.mixed:
        del record["mixed"]  # added after the first preset was frozen
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=dict).encode()).hexdigest()


def test_the_definition_is_frozen() -> None:
    assert definition_sha256(BENCHMARK_V1) == DEFINITION, FROZEN


@pytest.mark.parametrize("structure", sorted(FIRST_OF_TEST))
def test_the_images_are_frozen(structure: str) -> None:
    assert fingerprint(structure) == FIRST_OF_TEST[structure], FROZEN


def test_the_images_do_not_depend_on_the_instructions_of_the_processor() -> None:
    """NumPy's sines differ in the last bit between processors; the counts must not."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_benchmark_v1 as t; print(t.fingerprint('rings'))"
    features = "X86_V4 AVX512_ICL AVX512_SPR"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent)],
        env=os.environ | {"NPY_DISABLE_CPU_FEATURES": features},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == FIRST_OF_TEST["rings"]


def test_the_splits_are_disjoint_from_the_fields_for_training() -> None:
    assert {split: 7 * count for split, count in BENCHMARK_V1.splits.items()} == {
        "train": 2100,
        "validation": 350,
        "test": 1050,
    }
    assert BENCHMARK_V1.free_from >= sum(BENCHMARK_V1.splits.values())


def test_mean_brightness_is_the_same_for_every_class() -> None:
    def bright_fractions(structure: str) -> np.ndarray:
        settings = BENCHMARK_V1.settings
        images = [simulate_field(structure, seed=1, index=k, settings=settings).image for k in range(40)]
        return np.array([(image > 0.3 * np.percentile(image, 99.9)).mean() for image in images])

    groups = [bright_fractions(structure) for structure in BENCHMARK_V1.structures]
    deviation = np.std([group.mean() for group in groups])
    assert deviation < 2.0 * np.mean([group.std() for group in groups]) / np.sqrt(40)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 0}, "fixes seed"),
        ({"structures": ["rings"]}, "fixes structures"),
        ({"mixed": True}, "fixes mixed"),
        ({"engine": "pysted"}, "fixes engine"),
        ({"photons": (1.0, 2.0)}, "fixes photons"),
        ({"first_index": 5}, "set per_structure together with first_index"),
        ({"per_structure": 5}, "reserved for its splits; with per_structure, set first_index to 1000 or more"),
    ],
)
def test_settings_that_a_preset_fixes_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        simulate(tmp_path / "new", preset="benchmark-v1", **change)
    assert not (tmp_path / "new").exists()


def test_a_preset_can_simulate_additional_fields_for_training(tmp_path: Path) -> None:
    made = simulate(tmp_path, preset="benchmark-v1", per_structure=1, first_index=1000, masks=False, workers=1)
    assert sorted(made.manifest.items)[0] == "train/clusters/clusters_01000.tif"
    assert made.manifest.settings["seed"] == BENCHMARK_V1.seed


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown preset 'v2'; choose one of benchmark-v1"):
        find_preset("v2")


def test_scenes_for_segmentation_have_the_same_physics(tmp_path: Path) -> None:
    assert BENCHMARK_V1_SCENES.physics == BENCHMARK_V1.physics and BENCHMARK_V1_SCENES.seed == BENCHMARK_V1.seed
    assert definition_sha256(BENCHMARK_V1_SCENES) == SCENES_DEFINITION
    made = simulate(tmp_path, preset="benchmark-v1-scenes", per_structure=2, first_index=1000, workers=1)
    assert sorted(made.manifest.items) == ["train/mixed_01000.tif", "train/mixed_01001.tif"]
