"""synaptic-proteins, resolution and low-high-quality: fabricated HDF5 files with the authors' layout."""

from __future__ import annotations

import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.data.official.import_set import import_set
from stedfm_hf.data.splits import split_of
from stedfm_hf.runs import UserError
from tests.data.official.fabricated import PROTOCOLS, by_source, counted, random_image, rows_of, shared_sources, unit

h5py = pytest.importorskip("h5py")


def write(path: Path, **members: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in members.items():
            file[name.replace("__", "/")] = value
    return path


def stack(seed: int, count: int) -> np.ndarray:
    return np.stack([random_image(1000 * seed + n, dtype="float32") for n in range(count)])


# ------------------------------------------------------------------------------------- synaptic-proteins

PROTEINS = ["psd95", "bassoon", "homer", "gephyrin"]


@pytest.mark.parametrize("legacy", [False, True])
def test_synaptic_proteins(tmp_path: Path, legacy: bool) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        names = PROTEINS * 2
        write(tmp_path / "set" / f"{split}_v2.hdf5", images=stack(number, 8), proteins=names, conditions=["Block"] * 8)
    summary = import_set("synaptic-proteins", tmp_path / "set", tmp_path / "repo", protocol=PROTOCOLS[legacy])
    each = dict.fromkeys(PROTEINS, 2)
    assert summary.labels == tuple(sorted(PROTEINS))
    assert counted(summary) == {"train": each, "validation": each, "test": each}
    (row,) = by_source(summary)["test_v2.hdf5#5"]
    np.testing.assert_array_equal(unit(row), stack(2, 8)[5])
    assert row["metadata"] == {"condition": "Block"} and summary.labels[row["label"]] == "bassoon"


def test_proteins_that_are_numbers_and_a_copy_in_two_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images = stack(1 if split == "train" else 2, 4)
        images[3] = random_image(77, dtype="float32")
        write(tmp_path / "set" / f"{split}_v2.hdf5", images=images, proteins=[2, 0, 1, 3], conditions=[0, 0, 1, 1])
    summary = import_set("synaptic-proteins", tmp_path / "set", tmp_path / "repo")
    assert summary.labels == ("0", "1", "2", "3")
    assert summary.crops == {"train": 3, "test": 4}
    assert import_set("synaptic-proteins", tmp_path / "set", tmp_path / "all", protocol="reference").crops == {
        "train": 4,
        "test": 4,
    }


def test_a_damaged_file_is_reported_and_the_others_are_imported(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        path = write(tmp_path / "set" / f"{split}_v2.hdf5", images=stack(1, 4), proteins=PROTEINS, conditions=PROTEINS)
        if split == "valid":
            path.write_bytes(path.read_bytes()[:5000])
        if split == "test":
            with h5py.File(path, "a") as file:
                del file["conditions"]
                file["conditions"] = ["too few"]
    summary = import_set("synaptic-proteins", tmp_path / "set", tmp_path / "repo")
    failures = summary.manifest.failures()
    assert set(failures) == {"valid_v2.hdf5", "test_v2.hdf5"}
    assert "has 1 conditions for 4 images" in failures["test_v2.hdf5"] and summary.crops == {"train": 4}


def test_external_links_are_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.h5", images=stack(1, 4))
    path = write(tmp_path / "set" / "train_v2.hdf5", proteins=PROTEINS, conditions=PROTEINS)
    with h5py.File(path, "a") as file:
        file["images"] = h5py.ExternalLink(str(secret), "/images")
    write(tmp_path / "set" / "test_v2.hdf5", images=stack(2, 4), proteins=PROTEINS, conditions=PROTEINS)
    summary = import_set("synaptic-proteins", tmp_path / "set", tmp_path / "repo")
    assert "refused" in summary.manifest.failures()["train_v2.hdf5"] and summary.crops == {"test": 4}


# ------------------------------------------------------------------------------------- resolution


@pytest.mark.parametrize("legacy", [False, True])
def test_resolution_skips_targets_that_are_nan(tmp_path: Path, legacy: bool) -> None:
    targets = np.linspace(60, 140, 8)
    bad = targets.copy()
    bad[[2, 5]] = np.nan, np.inf
    for number, split in enumerate(("train", "valid", "test")):
        write(
            tmp_path / "set" / f"{split}.hdf5", data=stack(number, 8) * 9, labels=bad if split == "train" else targets
        )
    summary = import_set("resolution", tmp_path / "set", tmp_path / "repo", protocol=PROTOCOLS[legacy])
    assert summary.labels == () and summary.crops == {"train": 6, "validation": 8, "test": 8}
    rows = by_source(summary)
    (row,) = rows["test.hdf5#3"]
    assert row["metadata"]["resolution_nm"] == pytest.approx(targets[3]) and row["label"] is None
    np.testing.assert_array_equal(row["pixels"], stack(2, 8)[3] * 9)
    assert row["scaling"]["fitted_on"] == "crop"
    reason = summary.manifest.items["train.hdf5#2"].reason
    assert "train.hdf5#2" not in rows and reason is not None and "NaN" in reason
    assert summary.manifest.exit_status == 0


def test_resolution_without_splits_is_split_by_source_id(tmp_path: Path) -> None:
    path = write(tmp_path / "resolution.h5", data=stack(1, 40)[:, None], labels=np.arange(40.0)[:, None])
    summary = import_set("resolution", path, tmp_path / "repo")
    assert summary.crops == Counter(split_of(f"resolution.h5#{row}") for row in range(40)) and len(summary.crops) == 3
    assert not shared_sources(summary)
    with h5py.File(path, "a") as file:
        file["labels"][:] = np.nan
    with pytest.raises(UserError, match="no crop with a target"):
        import_set("resolution", path, tmp_path / "none")


def test_the_targets_of_resolution_can_be_read_for_a_regression(tmp_path: Path) -> None:
    labelled = pytest.importorskip("stedfm_hf.labels.labelled")
    path = write(tmp_path / "test.h5", data=stack(1, 4), labels=[60.0, 70.5, 80.0, 90.0])
    import_set("resolution", path, tmp_path / "repo")
    (found,) = labelled.read_labelled(tmp_path / "repo", target="resolution_nm").values()
    assert found.classes == () and sorted(found.labels) == [60.0, 70.5, 80.0, 90.0]


# ------------------------------------------------------------------------------------- low-high-quality


@pytest.mark.parametrize("legacy", [False, True])
def test_low_high_quality_takes_the_published_excitations_out_of_a_zip(tmp_path: Path, legacy: bool) -> None:
    path = write(
        tmp_path / "low-high-quality.hdf5",
        low__STED635P_5percent=stack(1, 10),
        low__STED580_10percent=stack(2, 10),
        low__STED580_50percent=stack(3, 10),
        high__STED635P_15percent=stack(4, 10),
        high__STED580_30percent=stack(5, 10),
        # "5percent" is a part of this name and of "15percent", but not the word:
        high__STED580_5percent=stack(6, 10),
    )
    with zipfile.ZipFile(tmp_path / "low-high-quality.zip", "w") as archive:
        archive.write(path, "low-high-quality/data.hdf5")
    summary = import_set(
        "low-high-quality", tmp_path / "low-high-quality.zip", tmp_path / "repo", protocol=PROTOCOLS[legacy]
    )
    assert summary.labels == ("low", "high")
    rows = rows_of(tmp_path / "repo")
    names = {(summary.labels[row["label"]], row["metadata"]["condition"]) for row in rows}
    assert names == {
        ("low", "STED635P_5percent"),
        ("low", "STED580_10percent"),
        ("high", "STED635P_15percent"),
        ("high", "STED580_30percent"),
    }
    assert len(rows) == 40 and set(summary.crops) == {"train", "validation", "test"}
    # Both images of a place are one source, and on one side.
    assert {len(each) for each in by_source(summary).values()} == {2} and not shared_sources(summary)
    skipped = [item for item, status in summary.manifest.items.items() if status.state == "skipped"]
    assert [item.partition("#")[2] for item in sorted(skipped)] == ["high/STED580_5percent", "low/STED580_50percent"]


def test_low_high_quality_without_a_class(tmp_path: Path) -> None:
    path = write(tmp_path / "test.hdf5", low__a_5percent=stack(1, 2), high__a_50percent=stack(2, 2))
    with pytest.raises(UserError, match="no image of high"):
        import_set("low-high-quality", path, tmp_path / "repo")
    only = write(tmp_path / "only.hdf5", low__a_5percent=stack(1, 2))
    with pytest.raises(UserError, match="contains no 'high'|no image of high"):
        import_set("low-high-quality", only, tmp_path / "repo")


def test_the_message_without_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "test.hdf5", data=stack(1, 2), labels=[1.0, 2.0])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"stedfm-hf\[hdf5\]"):
        import_set("resolution", path, tmp_path / "repo")


def test_a_folder_without_hdf5_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no HDF5 file"):
        import_set("resolution", tmp_path / "empty", tmp_path / "repo")
