"""peroxisome: classes are whole words (substrings in the reference protocol); only train is balanced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.data.official.import_set import import_set
from stedfm_hf.data.official.plan import classes_in
from stedfm_hf.runs import UserError
from tests.data.official.fabricated import (
    PEROXISOME,
    PROTOCOLS,
    by_source,
    counted,
    minmax,
    padded,
    random_image,
    rows_of,
    shared_sources,
    unit,
    write_lists,
    write_tiff,
)

COUNTS = {"training": (3, 2, 4, 5), "validation": (1, 1, 1, 2), "testing": (1, 2, 3, 2)}


def write_set(root: Path) -> Path:
    """Write two-channel files of 180 x 200 pixels and their lists."""
    lists: dict[str, list[str]] = {}
    for number, (split, counts) in enumerate(COUNTS.items()):
        for place, (label, count) in enumerate(zip(PEROXISOME, counts, strict=True)):
            for n in range(count):
                path = f"replicate {number}/{label}/Pex3_{n}.tif"
                write_tiff(root / path, random_image(100 * number + 10 * place + n, 2, 180, 200))
                lists.setdefault(split, []).append(path)
    write_lists(root, "peroxisome", **lists)
    return root


def test_classes_splits_and_values(tmp_path: Path) -> None:
    summary = import_set("peroxisome", write_set(tmp_path / "peroxisome"), tmp_path / "repo")
    assert summary.labels == PEROXISOME
    assert counted(summary) == {
        "train": dict.fromkeys(PEROXISOME, 2),
        "validation": dict(zip(PEROXISOME, COUNTS["validation"], strict=True)),
        "test": dict(zip(PEROXISOME, COUNTS["testing"], strict=True)),
    }
    (row,) = by_source(summary)["replicate 2/16hMeOH/Pex3_1.tif"]
    plane = random_image(200 + 30 + 1, 2, 180, 200)[0]
    np.testing.assert_allclose(unit(row), padded(minmax(plane)), atol=1e-6)
    assert not shared_sources(summary) and summary.notes == ()


def test_the_reference_protocol_gives_images_of_16_hours_both_labels_and_balances_every_split(tmp_path: Path) -> None:
    source = write_set(tmp_path / "peroxisome")
    summary = import_set("peroxisome", source, tmp_path / "repo", protocol="reference")
    # Of 6 hours are 2 + 5, 1 + 2 and 2 + 2: the rarest classes decide.
    assert counted(summary) == {
        "train": dict.fromkeys(PEROXISOME, 3),
        "validation": dict.fromkeys(PEROXISOME, 1),
        "test": dict.fromkeys(PEROXISOME, 1),
    }
    sixteen = [row for row in rows_of(summary.output) if "16hMeOH" in row["source"]]
    assert {summary.labels[row["label"]] for row in sixteen} == {"6hMeOH", "16hMeOH"}
    again = import_set("peroxisome", source, tmp_path / "again", protocol="reference")
    draws = [sorted((row["source"], row["label"]) for row in rows_of(each.output)) for each in (summary, again)]
    assert draws[0] == draws[1], "the draw has a seed"
    plane = random_image(200, 2, 180, 200)[0]
    (row,) = by_source(summary)["replicate 2/4hMeOH/Pex3_0.tif"]
    np.testing.assert_allclose(unit(row), padded(minmax(plane)), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/16hMeOH/x.tif", ["16hMeOH"]),
        ("a/Pex3_6hMeOH-2.tif", ["6hMeOH"]),
        ("6hMeOH", ["6hMeOH"]),
        ("26hMeOH/a.tif", []),
        ("6hbackGluc/a.tif", []),
    ],
)
def test_a_class_name_that_is_part_of_another(path: str, expected: list[str]) -> None:
    assert classes_in(path, PEROXISOME) == expected


def test_without_lists_the_third_replicate_is_the_test_set(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for place, label in enumerate(PEROXISOME):
        for n in range(10):
            write_tiff(root / label / f"cell_{n}.tif", random_image(20 * place + n, 50, 50))
        write_tiff(root / "Triplo" / label / "cell.tif", random_image(200 + place, 50, 50))
        write_tiff(root / "FigureImages" / label / "cell.tif", random_image(300 + place, 50, 50))
        write_tiff(root / label / "cell_conf.tif", random_image(400 + place, 50, 50))
    summary = import_set("peroxisome", root, tmp_path / "repo", keep_all=True)
    assert summary.crops == {"train": 32, "validation": 8, "test": 4}
    assert all(row["source"].startswith("Triplo/") for row in rows_of(summary.output) if row["split"] == "test")
    assert any("no lists" in note for note in summary.notes)


def test_images_larger_than_a_crop_are_split_into_crops_or_fail_in_the_reference_protocol(tmp_path: Path) -> None:
    root = write_set(tmp_path / "peroxisome")
    write_tiff(root / "replicate 2/4hMeOH/Pex3_0.tif", random_image(5, 100, 300))
    summary = import_set("peroxisome", root, tmp_path / "repo")
    rows = by_source(summary)["replicate 2/4hMeOH/Pex3_0.tif"]
    whole = minmax(random_image(5, 100, 300))
    assert sorted(row["x"] for row in rows) == [0, 76]
    for row in rows:
        np.testing.assert_allclose(unit(row)[:100], whole[:, row["x"] : row["x"] + 224], atol=1e-6)
        assert (unit(row)[100:] == 0).all()
    legacy = import_set("peroxisome", root, tmp_path / "legacy", protocol="reference")
    assert list(legacy.manifest.failures()) == ["replicate 2/4hMeOH/Pex3_0.tif"]


def test_an_image_without_contrast(tmp_path: Path) -> None:
    root = write_set(tmp_path / "peroxisome")
    write_tiff(root / "replicate 2/4hMeOH/Pex3_0.tif", np.full((100, 100), 9, np.uint16))
    for legacy in (False, True):
        summary = import_set("peroxisome", root, tmp_path / f"repo{legacy}", protocol=PROTOCOLS[legacy])
        (row,) = by_source(summary)["replicate 2/4hMeOH/Pex3_0.tif"]
        assert np.isnan(unit(row)[:100, :100]).all() if legacy else (unit(row) == 0).all()


def test_lists_and_files_that_do_not_match(tmp_path: Path) -> None:
    root = write_set(tmp_path / "peroxisome")
    gone, cut = root / "replicate 2/4hMeOH/Pex3_0.tif", root / "replicate 2/6hMeOH/Pex3_0.tif"
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:2000])
    with (root / "peroxisome-training.txt").open("a", encoding="utf-8") as file:
        file.write("/evaluation-data/peroxisome/replicate 2/8hMeOH/Pex3_0.tif\n")
    summary = import_set("peroxisome", root, tmp_path / "repo")
    failures = summary.manifest.failures()
    assert set(failures) == {
        "peroxisome-testing.txt: evaluation-data/peroxisome/replicate 2/4hMeOH/Pex3_0.tif",
        "replicate 2/6hMeOH/Pex3_0.tif",
    }
    # In the training list and in the test list: it stays in the test set.
    (row,) = by_source(summary)["replicate 2/8hMeOH/Pex3_0.tif"]
    assert row["split"] == "test" and not shared_sources(summary)
    legacy = import_set("peroxisome", root, tmp_path / "legacy", protocol="reference")
    assert legacy.manifest.exit_status == 1


def test_a_class_without_images(tmp_path: Path) -> None:
    write_tiff(tmp_path / "set" / "4hMeOH" / "a.tif", random_image(1, 50, 50))
    with pytest.raises(UserError, match="no image of 6hMeOH, 8hMeOH, 16hMeOH"):
        import_set("peroxisome", tmp_path / "set", tmp_path / "repo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no TIFF file"):
        import_set("peroxisome", tmp_path / "empty", tmp_path / "repo")
