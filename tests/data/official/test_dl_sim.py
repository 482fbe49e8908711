"""dl-sim: overlapping crops with enough foreground; crops at the border repeat in the reference protocol only."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.data.assembly.output import DatasetSummary
from stedfm_hf.data.official.import_set import import_set
from tests.data.assembled import empty_sheets
from tests.data.official.fabricated import (
    DL_SIM,
    PROTOCOLS,
    by_source,
    counted,
    minmax,
    random_image,
    shared_sources,
    unit,
    write_lists,
    write_tiff,
)

SIDE = 560
"""Crop positions 0, 168, 336 and, moved inward, 336 again."""


def field(seed: int, side: int = SIDE, dark: int = 200) -> np.ndarray:
    """Return an image that is bright in half of its pixels, but dark on the left."""
    pixels = random_image(seed, side, side, dtype="int64") // 9
    pixels[:, dark:] += 500 * (random_image(seed + 1000, side, side - dark) > 400)
    return pixels.astype(np.uint16)


def write_set(root: Path) -> Path:
    lists: dict[str, list[str]] = {}
    for number, split in enumerate(("training", "validation", "testing")):
        for place, label in enumerate(DL_SIM):
            path = f"{label}/{split}/HER_{number}.tif"
            write_tiff(root / path, field(10 * number + place))
            lists.setdefault(split, []).append(path)
    write_lists(root, "dl-sim", **lists)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("dl-sim") / "set")


@pytest.fixture(scope="module")
def corrected(root: Path) -> DatasetSummary:
    with empty_sheets():
        return import_set("dl-sim", root, root.parent / "corrected")


def test_classes_positions_and_values(corrected: DatasetSummary) -> None:
    summary = corrected
    assert summary.labels == DL_SIM
    # The first column has 24 of 224 columns with half of their pixels bright: less than a tenth.
    wanted = {(y, x) for y in (0, 168, 336) for x in (168, 336)}
    each = dict.fromkeys(DL_SIM, len(wanted))
    assert counted(summary) == {"train": each, "validation": each, "test": each}
    rows = by_source(summary)["factin/testing/HER_2.tif"]
    assert {(row["y"], row["x"]) for row in rows} == wanted and len(rows) == len(wanted)
    whole = minmax(field(21))
    for row in rows:
        crop = whole[row["y"] : row["y"] + 224, row["x"] : row["x"] + 224]
        np.testing.assert_allclose(unit(row), crop, atol=1e-6)
    assert not shared_sources(summary)


def test_the_reference_protocol_repeats_crops_at_the_border(
    root: Path, corrected: DatasetSummary, tmp_path: Path
) -> None:
    summary = import_set("dl-sim", root, tmp_path / "repo", protocol="reference")
    rows = by_source(summary)["factin/testing/HER_2.tif"]
    places = sorted((row["y"], row["x"]) for row in rows)
    assert places == sorted((y, x) for y in (0, 168, 336, 336) for x in (168, 336, 336))
    assert {(row["y"], row["x"]) for row in by_source(corrected)["factin/testing/HER_2.tif"]} == set(places)
    whole = minmax(field(21))
    for row in rows:
        np.testing.assert_allclose(unit(row), whole[row["y"] : row["y"] + 224, row["x"] : row["x"] + 224], atol=1e-6)


def test_without_lists_the_folder_testing_is_the_test_set(tmp_path: Path) -> None:
    for place, label in enumerate(DL_SIM):
        for n in range(5):
            write_tiff(tmp_path / "set" / label / "raw" / f"{n}.tif", field(20 * place + n, 224, 0))
        write_tiff(tmp_path / "set" / label / "testing" / "0.tif", field(20 * place + 9, 224, 0))
    summary = import_set("dl-sim", tmp_path / "set", tmp_path / "repo")
    assert summary.sources == {"train": 14, "validation": 6, "test": 4}
    assert counted(summary)["test"] == dict.fromkeys(DL_SIM, 1)


@pytest.mark.parametrize("legacy", [False, True])
def test_small_and_flat_images(root: Path, tmp_path: Path, legacy: bool) -> None:
    root = shutil.copytree(root, tmp_path / "set")
    write_tiff(root / "adhesion/training/HER_0.tif", random_image(1, 100, 300))
    write_tiff(root / "factin/training/HER_0.tif", np.full((300, 300), 4, np.uint16))
    summary = import_set("dl-sim", root, tmp_path / "repo", protocol=PROTOCOLS[legacy])
    items = summary.manifest.items
    assert items["adhesion/training/HER_0.tif"].state == "failed"
    assert items["factin/training/HER_0.tif"].reason == "no crop has enough foreground or annotated pixels"
    assert set(counted(summary)["train"]) == {"microtubule", "mitochondrial"}
    assert any("split 'train' has no crop of adhesion, factin" in note for note in summary.notes)
