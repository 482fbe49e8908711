"""optim: classes, order, scores and values as published; no division by zero and no copies by default."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.data.official.import_set import import_set
from stedfm_hf.runs import UserError
from tests.data.official.fabricated import (
    OPTIM,
    PROTOCOLS,
    by_source,
    counted,
    minmax,
    random_image,
    rows_of,
    shared_sources,
    unit,
    write_npz,
    write_optim,
)


@pytest.mark.parametrize("legacy", [False, True])
def test_classes_splits_scores_and_values(tmp_path: Path, legacy: bool) -> None:
    write_optim(tmp_path / "set")
    summary = import_set("optim", tmp_path / "set", tmp_path / "repo", protocol=PROTOCOLS[legacy])
    assert summary.labels == OPTIM
    each = dict.fromkeys(OPTIM, 2)
    assert counted(summary) == {"train": each, "validation": each, "test": each}
    rows = by_source(summary)
    for number, folder in enumerate(("optim_train", "optim_valid", "optim-data")):
        for place, label in enumerate(OPTIM):
            for n, score in enumerate((0.7, 0.95)):
                (row,) = rows[f"{folder}/{label}/day 1/image-{n}-{score:.2f}.npz"]
                pixels = random_image(100 * number + 10 * place + n, dtype="float32")
                np.testing.assert_allclose(unit(row), minmax(pixels), atol=1e-6)
                assert row["metadata"] == {"score": score} and summary.labels[row["label"]] == label
    assert summary.manifest.items["optim-data/actin/day 1/image-2-0.69.npz"].state == "skipped"
    assert not shared_sources(summary)


def test_an_image_without_contrast_is_zeros_and_in_legacy_nan(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    write_npz(tmp_path / "set" / "optim_train" / "actin" / "flat-0.80.npz", np.full((224, 224), 5.0))
    for legacy in (False, True):
        summary = import_set("optim", tmp_path / "set", tmp_path / f"repo{legacy}", protocol=PROTOCOLS[legacy])
        (row,) = by_source(summary)["optim_train/actin/flat-0.80.npz"]
        assert np.isnan(unit(row)).all() if legacy else (unit(row) == 0).all()


def test_an_image_in_two_splits_stays_in_the_test_set_and_in_legacy_in_both(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    for folder in ("optim_train", "optim-data"):
        write_npz(tmp_path / "set" / folder / "tubulin" / f"copy in {folder}-0.80.npz", random_image(77))
    corrected = counted(import_set("optim", tmp_path / "set", tmp_path / "repo"))
    assert corrected["train"]["tubulin"] == 2 and corrected["test"]["tubulin"] == 3
    repeated = counted(import_set("optim", tmp_path / "set", tmp_path / "legacy", protocol="reference"))
    assert repeated["train"]["tubulin"] == 3 and repeated["test"]["tubulin"] == 3


def test_a_zip_of_the_test_set_alone(tmp_path: Path) -> None:
    write_optim(tmp_path, ("optim-data",))
    with zipfile.ZipFile(tmp_path / "optim-data.zip", "w") as archive:
        for path in (tmp_path / "optim-data").rglob("*.npz"):
            archive.write(path, path.relative_to(tmp_path / "optim-data"))
        archive.writestr("__MACOSX/actin/._image-0-0.95.npz", b"x")
    summary = import_set("optim", tmp_path / "optim-data.zip", tmp_path / "repo")
    assert counted(summary) == {"test": dict.fromkeys(OPTIM, 2)}
    assert "the source has no image of the split 'train'" in summary.notes


def test_a_missing_class_folder_is_reported_and_nothing_is_written(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    (tmp_path / "set" / "optim_valid" / "tubulin").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="optim_valid: no folder tubulin"):
        import_set("optim", tmp_path / "set", tmp_path / "repo")
    assert not (tmp_path / "repo").exists()
    with pytest.raises(UserError, match="none of the folders optim_train"):
        import_set("optim", tmp_path / "elsewhere", tmp_path / "repo")


class Call:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, self.arguments


def test_damaged_and_hostile_files_are_reported_and_the_others_are_imported(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    folder = tmp_path / "set" / "optim_train" / "actin" / "day 1"
    cut = folder / "image-0-0.70.npz"
    cut.write_bytes(cut.read_bytes()[:3000])
    hostile = np.empty((), object)
    hostile[()] = Call(str(tmp_path / "ran"))
    np.savez(folder / "hostile-0.90.npz", hostile)
    np.savez(folder / "other-0.90.npz", image=random_image(3))
    write_npz(folder / "nan-0.90.npz", np.full((224, 224), np.nan))
    write_npz(folder / "stack-0.90.npz", random_image(5, 2, 224, 224))
    summary = import_set("optim", tmp_path / "set", tmp_path / "repo")
    assert not (tmp_path / "ran").exists()
    failures = {name.rpartition("/")[2]: error for name, error in summary.manifest.failures().items()}
    assert set(failures) == {cut.name, "hostile-0.90.npz", "other-0.90.npz", "nan-0.90.npz", "stack-0.90.npz"}
    assert "refused" in failures["hostile-0.90.npz"] and "arr_0" in failures["other-0.90.npz"]
    assert summary.manifest.exit_status == 1 and len(rows_of(tmp_path / "repo")) == 23


def test_pixels_keep_their_dtype(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    write_npz(tmp_path / "set" / "optim-data" / "actin" / "double-0.80.npz", random_image(9, dtype="float64"))
    for legacy in (False, True):
        summary = import_set("optim", tmp_path / "set", tmp_path / f"repo{legacy}", protocol=PROTOCOLS[legacy])
        (row,) = by_source(summary)["optim-data/actin/double-0.80.npz"]
        assert row["dtype"] == "float64" and row["scaling"]["applied"] is legacy


def test_files_without_a_score_and_other_files_are_skipped(tmp_path: Path) -> None:
    write_optim(tmp_path / "set")
    folder = tmp_path / "set" / "optim-data"
    write_npz(folder / "actin" / "image-12.npz", random_image(1))
    write_npz(folder / "vimentin" / "image-0.90.npz", random_image(2))
    (folder / "README.txt").write_text("hello", encoding="utf-8")
    summary = import_set("optim", tmp_path / "set", tmp_path / "repo")
    items = summary.manifest.items
    assert items["optim-data/actin/image-12.npz"].reason == "no score in the file name"
    assert items["optim-data/vimentin/image-0.90.npz"].reason == "the folder is not a class of the set"
    assert items["optim-data/README.txt"].state == "skipped" and sum(summary.crops.values()) == 24


def test_npz_arrays_are_read_with_the_closed_unpickler(tmp_path: Path) -> None:
    from stedfm_hf.data.official.npz import read_npz

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, image=np.asfortranarray(random_image(1)), metadata=np.array({"a": [1, "b"]}, dtype=object)
    )
    found = read_npz(buffer.getvalue(), "image", "metadata")
    np.testing.assert_array_equal(found["image"], random_image(1))
    assert found["metadata"] == {"a": [1, "b"]}
