"""neural-activity-states: only the training split is balanced by default, and sources stay in one split."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.data.official.import_set import import_set
from stedfm_hf.data.official.neural_activity_states import CLASSES
from stedfm_hf.runs import UserError
from tests.data.official.fabricated import (
    NAS,
    by_source,
    counted,
    nas_member,
    random_image,
    rows_of,
    shared_sources,
    write_nas,
)


def whole_set(root: Path) -> Path:
    write_nas(root, "train", (4, 3, 2, 5), 0)
    write_nas(root, "valid", (2, 1, 3, 2), 100)
    write_nas(root, "test", (3, 2, 1, 4), 200)
    return root


def test_only_the_training_split_is_balanced_unless_the_reference_protocol_is_used(tmp_path: Path) -> None:
    source = whole_set(tmp_path / "set")
    summary = import_set("neural-activity-states", source, tmp_path / "repo")
    assert summary.labels == NAS == CLASSES
    whole = {
        "validation": dict(zip(NAS, (2, 1, 3, 2), strict=True)),
        "test": dict(zip(NAS, (3, 2, 1, 4), strict=True)),
    }
    assert counted(summary) == {"train": dict.fromkeys(NAS, 2), **whole}
    kept = import_set("neural-activity-states", source, tmp_path / "all", keep_all=True)
    assert counted(kept) == {"train": dict(zip(NAS, (4, 3, 2, 5), strict=True)), **whole}
    legacy = import_set("neural-activity-states", source, tmp_path / "legacy", protocol="reference")
    balanced = {split: dict.fromkeys(NAS, n) for split, n in (("train", 2), ("validation", 1), ("test", 1))}
    assert counted(legacy) == balanced
    # Both draw the same training images, by the published seed.
    train = [{row["source"] for row in rows_of(each.output) if row["split"] == "train"} for each in (summary, legacy)]
    assert train[0] == train[1]


@pytest.mark.parametrize("zipped", [False, True])
def test_pixels_masks_and_sources(tmp_path: Path, zipped: bool) -> None:
    source = write_nas(tmp_path, "test", (1, 1, 1, 1), 7)
    if zipped:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.write(source, f"NeuralActivityStates/{source.name}")
        source = tmp_path / "set.zip"
    summary = import_set("neural-activity-states", source, tmp_path / "repo")
    rows = rows_of(tmp_path / "repo")
    assert len({row["source"] for row in rows}) == 4 and not any("zoe" in row["source"] for row in rows)
    for row in rows:
        image = random_image(7 + row["label"], dtype="float32")
        np.testing.assert_array_equal(row["pixels"], image)
        np.testing.assert_array_equal(np.frombuffer(row["mask"], "u1").reshape(224, 224), image > 0.5)
        assert row["scaling"]["applied"] is True
    assert "the source has no image of the split 'train'" in summary.notes


def test_an_image_in_two_splits_by_its_folder_or_its_pixels_stays_in_the_test_set(tmp_path: Path) -> None:
    root = tmp_path / "set"
    same_folder = nas_member("Block", 90, "/home/zoe/both.msr")
    same_pixels = nas_member("GluGly", 91, "/home/zoe/x.msr", seed=1000)
    write_nas(root, "train", (3, 3, 3, 3), 0, same_folder, same_pixels)
    write_nas(
        root,
        "test",
        (1, 1, 1, 1),
        200,
        nas_member("Block", 92, "/home/zoe/both.msr"),
        nas_member("GluGly", 93, "/home/zoe/y.msr", seed=1000),
    )
    summary = import_set("neural-activity-states", root, tmp_path / "repo", keep_all=True)
    assert counted(summary)["train"] == dict.fromkeys(NAS, 3)
    assert counted(summary)["test"] == {"Block": 2, "0MgGlyBic": 1, "GluGly": 2, "48hTTX": 1}
    assert not shared_sources(summary) and summary.manifest.exit_status == 0
    reasons = {
        item: status.reason or "" for item, status in summary.manifest.items.items() if status.state == "skipped"
    }
    assert sorted(reasons.values()) == [
        "the same pixels are in the split 'test'",
        "the source image is also in the split 'test'",
    ]
    assert any("1 images were skipped" in note for note in summary.notes)
    legacy = import_set("neural-activity-states", root, tmp_path / "legacy", protocol="reference")
    assert counted(legacy) == {"train": dict.fromkeys(NAS, 3), "test": dict.fromkeys(NAS, 1)}


def test_folders_with_more_than_one_image_are_not_sources(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split, first in (("train", 0), ("test", 100)):
        members = [nas_member(label, first + n, f"/home/zoe/{label}") for n, label in enumerate(NAS * 3)]
        write_nas(root, split, (0, 0, 0, 0), 0, *members)
    summary = import_set("neural-activity-states", root, tmp_path / "repo")
    assert counted(summary) == {split: dict.fromkeys(NAS, 3) for split in ("train", "test")}
    assert not shared_sources(summary) and any("img_folder" in note for note in summary.notes)


def test_damaged_members_and_a_truncated_tar_are_reported(tmp_path: Path) -> None:
    root = tmp_path / "set"
    name, content = nas_member("Block", 50, "/home/zoe/50.msr")
    write_nas(root, "train", (2, 2, 2, 2), 0, (name, content[:500]), ("Block-PSD95-51", b"nothing"))
    test = write_nas(root, "test", (2, 2, 2, 2), 200)
    test.write_bytes(test.read_bytes()[:-100_000])
    summary = import_set("neural-activity-states", root, tmp_path / "repo")
    failures = summary.manifest.failures()
    assert {"NAS_PSD95_train_v2.tar#8 Block-PSD95-50", "NAS_PSD95_train_v2.tar#9 Block-PSD95-51"} < set(failures)
    assert any("NAS_PSD95_test" in item for item in failures)
    assert counted(summary)["train"] == dict.fromkeys(NAS, 2) and sum(counted(summary)["test"].values()) == 7


def test_a_source_without_the_tars_or_without_a_class(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="NAS_PSD95_train_v2.tar"):
        import_set("neural-activity-states", tmp_path / "empty", tmp_path / "repo")
    with pytest.raises(UserError, match="no image of 48hTTX"):
        import_set("neural-activity-states", write_nas(tmp_path, "test", (1, 1, 1, 0), 0), tmp_path / "repo")


def test_every_row_has_one_source(tmp_path: Path) -> None:
    summary = import_set("neural-activity-states", whole_set(tmp_path / "set"), tmp_path / "repo")
    assert all(len(rows) == 1 for rows in by_source(summary).values())
