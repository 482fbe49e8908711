"""polymer-rings: the file name determines the channel; two classes or four."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.data.official.import_set import import_set
from stedfm_hf.data.official.polymer_rings import FOUR_CLASSES
from tests.data.official.fabricated import (
    PROTOCOLS,
    by_source,
    counted,
    minmax,
    padded,
    random_image,
    shared_sources,
    unit,
    write_lists,
    write_tiff,
)

FILES = {
    "training": ["with_CdvB/2020_a_1_CdvB_CdvB1_CdvB2.tif", "no_CdvB/2020_a_2_CdvB2_CdvB1.tif"],
    "validation": ["with_CdvB/2020_b_1_CdvB1_CdvB.tif", "no_CdvB/2020_b_2_CdvB2.tif"],
    "testing": ["no_CdvB/2020_c_1_CdvB1_DNA.tif", "no_CdvB/2020_c_2_DNA_CdvB2.tif", "no_CdvB/2020_c_3_DNA.tif"],
}


def write_set(root: Path) -> Path:
    for number, path in enumerate(path for paths in FILES.values() for path in paths):
        channels = len(path.split("_")) - len(path.partition("/")[0].split("_")) - 2
        write_tiff(root / path, random_image(number, *((channels,) if channels > 1 else ()), 90, 120))
    write_lists(root, "polymer-rings", **FILES)
    return root


@pytest.mark.parametrize("legacy", [False, True])
def test_classes_splits_and_channels(tmp_path: Path, legacy: bool) -> None:
    summary = import_set("polymer-rings", write_set(tmp_path / "set"), tmp_path / "repo", protocol=PROTOCOLS[legacy])
    assert summary.labels == ("CdvB1", "CdvB2")
    assert counted(summary) == {
        "train": {"CdvB1": 2, "CdvB2": 2},
        "validation": {"CdvB1": 1, "CdvB2": 1},
        "test": {"CdvB1": 1, "CdvB2": 1},
    }
    rows = {row["label"]: row for row in by_source(summary)["with_CdvB/2020_a_1_CdvB_CdvB1_CdvB2.tif"]}
    planes = random_image(0, 3, 90, 120)
    for label, channel in ((0, 1), (1, 2)):
        np.testing.assert_allclose(unit(rows[label]), padded(minmax(planes[channel])), atol=1e-6)
    reason = summary.manifest.items["no_CdvB/2020_c_3_DNA.tif"].reason
    assert reason == "the file name contains neither CdvB1 nor CdvB2 from its fourth word on" and not shared_sources(
        summary
    )


def test_four_classes(tmp_path: Path) -> None:
    summary = import_set("polymer-rings-4", write_set(tmp_path / "set"), tmp_path / "repo")
    assert (
        summary.labels
        == FOUR_CLASSES
        == (
            "CdvB1 (with_CdvB)",
            "CdvB1 (no_CdvB)",
            "CdvB2 (with_CdvB)",
            "CdvB2 (no_CdvB)",
        )
    )
    assert counted(summary)["train"] == dict.fromkeys(FOUR_CLASSES, 1)


def test_without_lists_files_are_split_by_the_published_fractions(tmp_path: Path) -> None:
    for n in range(20):
        write_tiff(tmp_path / "set" / f"2020_a_{n}_CdvB1_CdvB2.tif", random_image(n, 2, 30, 30))
    summary = import_set("polymer-rings", tmp_path / "set", tmp_path / "repo")
    assert summary.sources == {"train": 14, "validation": 3, "test": 3} and not shared_sources(summary)


def test_a_file_without_the_named_channel_fails(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    write_tiff(root / FILES["testing"][1], random_image(9, 90, 120))
    summary = import_set("polymer-rings", root, tmp_path / "repo")
    assert summary.manifest.failures() == {FILES["testing"][1]: "has 1 planes; plane 2 is needed"}


def test_a_flat_image_is_zeros_and_in_legacy_nan(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    write_tiff(root / FILES["validation"][1], np.full((90, 120), 3, np.uint16))
    for legacy in (False, True):
        summary = import_set("polymer-rings", root, tmp_path / f"repo{legacy}", protocol=PROTOCOLS[legacy])
        (row,) = by_source(summary)[FILES["validation"][1]]
        assert np.isnan(unit(row)[:90, :120]).all() if legacy else (unit(row) == 0).all()
