"""Reading of labelled images, errors, and unreadable images."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest
import tifffile

from stedfm_hf.data.splits import file_id
from stedfm_hf.labels.labelled import from_arrays, read_labelled
from stedfm_hf.labels.labelled.targets import read_targets
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import arrays, class_folder, crop_repo, sample_image

TWO_SPLITS: dict[str, list[tuple[str | None, str]]] = {
    "train": [("rings", "a"), ("rings", "a"), ("puncta", "b"), (None, "c"), ("puncta", "d"), ("rings", "e")],
    "test": [("puncta", "f"), ("rings", "g")],
}


def test_repositories_are_read_with_splits_classes_and_sources(tmp_path: Path) -> None:
    splits = read_labelled(crop_repo(tmp_path / "cells", TWO_SPLITS))
    train = splits["train"]
    assert list(splits) == ["train", "test"] and train.name == "cells"
    assert train.classes == ("puncta", "rings") and train.labels.tolist() == [1, 1, 0, 0, 1]
    assert train.sources.tolist() == ["a", "a", "b", "d", "e"] and len(train.unlabelled) == 1
    assert train.image_ids.tolist()[3] == "train/4"
    # Labelled image 3 is row 4 of the split, in its second row group; an intensity of 200 means 1.
    np.testing.assert_allclose(train.image(3)[0], np.clip(sample_image(0, 4) / 200, 0, 1), rtol=1e-6)
    assert splits["test"].labels.tolist() == [0, 1]


def test_a_single_split_can_be_read(tmp_path: Path) -> None:
    repo = crop_repo(tmp_path / "cells", TWO_SPLITS)
    assert list(read_labelled(repo, "test")) == ["test"]
    with pytest.raises(UserError, match="no split 'tset'; choose from train, test"):
        read_labelled(repo, "tset")


def test_labelled_images_can_be_pickled(tmp_path: Path) -> None:
    train = read_labelled(crop_repo(tmp_path / "cells", TWO_SPLITS))["train"]
    copy = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(copy.image(2), train.image(2))


def test_the_fingerprint_depends_on_the_content_not_on_the_path(tmp_path: Path) -> None:
    one = class_folder(tmp_path / "one", {"a": 2, "b": 2})
    same = class_folder(tmp_path / "same", {"a": 2, "b": 2})
    other = class_folder(tmp_path / "other", {"a": 2, "c": 2})
    first, second, third = (read_labelled(folder)["all"].fingerprint for folder in (one, same, other))
    assert first == second != third
    data = arrays(3)
    assert data.take(range(9)).fingerprint == data.fingerprint
    assert len({data.fingerprint, data.take([0, 1]).fingerprint, data.take([1, 0]).fingerprint}) == 3


def test_masks_in_class_folders_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = class_folder(tmp_path / "set", {"a": 2, "b": 2})
    image = next((folder / "a").iterdir())
    image.with_name(f"{image.stem}_cp_masks{image.suffix}").write_bytes(image.read_bytes())
    (folder / "b" / f"{image.name}.map1.png").write_bytes(b"x")
    assert len(read_labelled(folder)["all"]) == 4
    note = capsys.readouterr().err
    assert "note: skipped 1 mask of the input images" in note and "skipped 1 file with results of stedfm" in note


def test_class_folders_are_matched_by_their_whole_name(tmp_path: Path) -> None:
    """The reference matched parts of names, so that images of 16hMeOH were also labelled 6hMeOH."""
    data = read_labelled(class_folder(tmp_path / "set", {"6hMeOH": 2, "16hMeOH": 3}))["all"]
    assert data.counts() == {"16hMeOH": 3, "6hMeOH": 2}
    ids = [file_id(tmp_path / "set" / image_id) for image_id in data.image_ids.tolist()]
    assert data.sources.tolist() == data.contents.tolist() == ids
    assert data.image_ids.tolist()[0] == "16hMeOH/000.tif" and data.image(0).shape == (1, 32, 32)


def test_split_folders_are_splits_and_a_pattern_finds_source_ids(tmp_path: Path) -> None:
    for split in ("train", "val"):
        class_folder(tmp_path / split, {"a": 2, "b": 2})
    splits = read_labelled(tmp_path, source_pattern=r"(\w+/\w)/\d+")
    assert list(splits) == ["train", "validation"]
    assert splits["train"].sources.tolist() == ["train/a", "train/a", "train/b", "train/b"]
    with pytest.raises(UserError, match="does not match the source pattern"):
        read_labelled(tmp_path, source_pattern="cell")


def test_a_corrupt_image_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    class_folder(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "001.tif").write_bytes(b"II*\0broken")
    data = read_labelled(tmp_path)["all"]
    assert list(data.failed) == ["a/001.tif"] and data.failed["a/001.tif"]
    assert data.counts() == {"a": 2, "b": 3}


def test_notes_on_images_are_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = class_folder(tmp_path, {"rings": 2, "puncta": 2})
    for name in ("rings/001.tif", "puncta/001.tif"):
        tifffile.imwrite(folder / name, np.zeros((3, 4), np.uint8), append=True, subfiletype=1, metadata=None)
    read_labelled(folder)
    expected = "stedfm: note: 2 files: preview pages are left out (puncta/001.tif, rings/001.tif)\n"
    assert capsys.readouterr().err == expected


def test_a_hub_data_set_with_an_image_column_is_read(tmp_path: Path) -> None:
    rows = {"image": [sample_image(n % 2, n).astype(np.uint8) for n in range(6)], "kind": [n % 2 for n in range(6)]}
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=["fine", "coarse"])})
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    data = read_labelled(tmp_path, target="kind")["train"]
    assert data.classes == ("fine", "coarse") and data.labels.tolist() == [0, 1] * 3 and data.image(1).shape[0] == 1


def test_targets_of_a_regression_are_read_from_the_metadata(tmp_path: Path) -> None:
    metadata = [{"resolution_nm": 40.0 + n} for n in range(3)]
    rows = [(None, "a"), (None, "b"), (None, "c")]
    repo = crop_repo(tmp_path / "cells", {"train": rows}, metadata)
    data = read_labelled(repo, target="resolution_nm")["train"]
    assert data.task == "regression" and data.labels.tolist() == [40.0, 41.0, 42.0] and data.classes == ()
    with pytest.raises(UserError, match="no column or metadata 'resolution'; choose from .*resolution_nm"):
        read_labelled(repo, target="resolution")


def test_simulated_data_sets_are_recognised(tmp_path: Path) -> None:
    repo = crop_repo(tmp_path / "cells", TWO_SPLITS)
    assert not read_labelled(repo)["train"].simulated
    card = repo / "README.md"
    card.write_text(
        card.read_text(encoding="utf-8").replace("---\n", "---\ntags:\n- synthetic\n", 1), encoding="utf-8"
    )
    assert read_labelled(repo)["train"].simulated
    folder = class_folder(tmp_path / "out" / "images", {"a": 1, "b": 1})
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({"command": "data simulate"}), encoding="utf-8")
    assert read_labelled(folder)["all"].simulated


def test_a_class_without_training_images_is_an_error(tmp_path: Path) -> None:
    repo = crop_repo(tmp_path / "cells", {"train": [("a", "1"), ("b", "2")], "test": [("a", "3"), ("c", "4")]})
    with pytest.raises(UserError, match="no image of class c is in train, but test has some"):
        read_labelled(repo)


def test_a_split_of_images_without_splits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no splits, so 'tset' cannot be selected"):
        read_labelled(class_folder(tmp_path / "two", {"a": 2, "b": 2}), split="tset")


def test_a_single_class_or_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"all images are of one class \(a\)"):
        read_labelled(class_folder(tmp_path / "one", {"a": 3}))
    with pytest.raises(UserError, match="no class folders"):
        read_labelled(class_folder(tmp_path / "flat", {".": 3}))
    with pytest.raises(UserError, match="no image has a label"):
        read_labelled(crop_repo(tmp_path / "cells", {"train": [(None, "1")]}))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([{"a": 1}, {"a": 2}], "unsupported type .*0 has .*a dict"),
        (["a", 1], "or several types"),
        ([b"a", b"b"], "unsupported type .*a bytes"),
        ([["a", 0.5], ["b"]], "neither int nor str"),
        ([1.5, float("nan")], "1 of 2 targets are NaN or infinite"),
        ([None, None], "no image has a label"),
    ],
)
def test_invalid_labels_are_an_error(labels: list[object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_arrays("set", [np.eye(8)] * len(labels), labels)


def test_types_of_labels() -> None:
    def parsed(*entries: object, names: tuple[str, ...] = ()) -> tuple[tuple[str, ...], list[object]]:
        found = read_targets(entries, names=names, where="set", image_ids=[str(n) for n in range(len(entries))])
        return found.classes, found.values.tolist()

    assert parsed(10, 9, 10) == (("9", "10"), [1, 0, 1])
    assert parsed(True, False) == (("False", "True"), [1, 0])
    assert parsed(2, 0, names=("x", "y", "z")) == (("x", "z"), [1, 0])
    assert parsed(1, 2.5) == ((), [1.0, 2.5])
    assert parsed(["a", "b"], [], ["b"]) == (("a", "b"), [[1, 1], [0, 0], [0, 1]])
    assert parsed([0, 1, 1], [1, 0, 0]) == (("0", "1", "2"), [[0, 1, 1], [1, 0, 0]])
    with pytest.raises(UserError, match="not one of the 2 classes"):
        parsed(2, names=("x", "y"))


def test_folders_of_images_and_masks_are_not_class_folders(tmp_path: Path) -> None:
    class_folder(tmp_path / "set", {"images": 2, "masks": 2})
    with pytest.raises(UserError, match=r"images and masks, not class folders\. Put the images of each class"):
        read_labelled(tmp_path / "set")
    class_folder(tmp_path / "classes", {"images/a": 2, "masks/a": 2})
    with pytest.raises(UserError, match=r"not class folders\. Use .*images instead"):
        read_labelled(tmp_path / "classes")
