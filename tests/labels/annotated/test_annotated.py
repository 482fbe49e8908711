"""Reading of annotated images from folders and data sets, errors, and unreadable images."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest
import tifffile
from PIL import Image

from stedfm_hf.data.assembly.assemble import index_of
from stedfm_hf.data.splits import file_id
from stedfm_hf.labels.annotated import class_warnings, from_arrays, read_annotated
from stedfm_hf.runs import UserError
from tests.labels.annotated.annotated_data import SHAPE, label_mask, masked_repo, pair_folder, sample_image

ROW = SHAPE[1]


def test_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    pair_folder(tmp_path / "cells", {"a": label_mask(1, 2), "b": label_mask(2, 255), "c": None})
    splits = read_annotated(tmp_path / "cells", classes=["rings", "fibres"])
    data = splits["all"]
    assert list(splits) == ["all"] and data.name == "cells" and len(data.without_mask) == 1 and not data.failed
    assert data.classes == ("background", "rings", "fibres") and data.target_type == "single_label"
    image, target = data[1]
    assert image.shape == (1, *SHAPE) and image.dtype == np.float32 and 0 <= image.min() <= image.max() <= 1
    assert target.dtype == np.int64 and target[0].tolist() == [2] * ROW and target[1].tolist() == [255] * ROW
    assert data.counts() == {"background": 20 * ROW, "rings": ROW, "fibres": 2 * ROW}
    assert data.annotated[0] == pytest.approx(2 / 12) and data.annotated[1] == pytest.approx(1 / 12)
    files = [tmp_path / "cells" / "images" / name for name in ("a.tif", "b.tif")]
    assert data.sources.tolist() == data.contents.tolist() == [file_id(file) for file in files]
    assert data.region(0) is None and data.image_ids.tolist() == ["a.tif", "b.tif"]


def test_masks_next_to_their_images_and_regions(tmp_path: Path) -> None:
    region = np.zeros(SHAPE, bool)
    region[:4] = True
    for number, name in enumerate(("x", "y")):
        tifffile.imwrite(tmp_path / f"{name}_image.tif", sample_image(number))
        Image.fromarray(label_mask(255)).save(tmp_path / f"{name}_mask.png")
    tifffile.imwrite(tmp_path / "x_region.tif", region.astype(np.uint8))
    data = read_annotated(tmp_path, source_pattern=r"(\w)_image")["all"]
    assert data.image_ids.tolist() == ["x_image.tif", "y_image.tif"] and data.sources.tolist() == ["x", "y"]
    # All masks hold only 0 and 255: 255 is the class.
    assert data.classes == ("background", "class 1") and data.target(0).sum() == ROW
    np.testing.assert_array_equal(data.region(0), region)
    assert data.region(1) is None


@pytest.mark.parametrize("around", ["splits around", "splits within", "next to images"])
def test_split_folders(tmp_path: Path, around: str) -> None:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            folder = tmp_path / (f"{split}/{kind}" if around == "splits around" else f"{kind}/{split}")
            folder = tmp_path / split if around == "next to images" else folder
            folder.mkdir(parents=True, exist_ok=True)
            end = "_mask" if around == "next to images" and kind == "masks" else ""
            tifffile.imwrite(folder / f"a{end}.tif", sample_image(0) if kind == "images" else label_mask(1))
    splits = read_annotated(tmp_path)
    assert list(splits) == ["train", "validation"]
    assert all(
        len(data) == 1 and data.image_ids[0].endswith("/a.tif") or around == "splits within"
        for data in splits.values()
    )
    assert list(read_annotated(tmp_path, "validation")) == ["validation"]
    with pytest.raises(UserError, match="no split 'test'; choose from train, validation"):
        read_annotated(tmp_path, "test")


def test_a_separate_folder_of_masks(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1)})
    data = read_annotated(tmp_path / "images", masks=tmp_path / "masks")["all"]
    assert data.counts()["class 1"] == ROW
    with pytest.raises(UserError, match="folder of masks not found"):
        read_annotated(tmp_path / "images", masks=tmp_path / "nothing")


def test_a_repository(tmp_path: Path) -> None:
    rows = [(label_mask(1, 4), "s1"), (None, "s1"), (label_mask(4), "s2")]
    repo = masked_repo(
        tmp_path / "crops",
        {"train": rows, "test": [(label_mask(1), "s3")]},
        {0: "background", 1: "rings", 4: "puncta"},
    )
    splits = read_annotated(repo)
    train = splits["train"]
    assert train.classes == splits["test"].classes == ("background", "rings", "puncta")
    assert (
        len(train) == 2 and train.without_mask == ("train/1",) and train.image_ids.tolist() == ["train/0", "train/2"]
    )
    assert train.target(1)[0].tolist() == [2] * ROW and train.sources.tolist() == ["s1", "s2"]
    # The crop stores the intensities that mean 0 and 1: it is scaled once.
    np.testing.assert_allclose(train.image(1)[0], np.clip(sample_image(2) / 100, 0, 1), rtol=1e-6)
    # A single split has the same class numbers as all splits together.
    assert read_annotated(repo, "test")["test"].classes == train.classes
    assert read_annotated(repo, "test")["test"].fingerprint == splits["test"].fingerprint
    assert class_warnings(splits) == [
        "crops: no pixel of puncta is in test, but train has some: "
        "the metrics of the class count only its false positives"
    ]
    copy = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(copy.target(0), train.target(0))
    with pytest.raises(UserError, match="a data set, which contains masks"):
        read_annotated(repo, masks=tmp_path)


def test_a_repository_without_masks(tmp_path: Path) -> None:
    repo = masked_repo(tmp_path / "crops", {"train": [(None, "s1")]})
    with pytest.raises(UserError, match="no image has a readable mask"):
        read_annotated(repo)


def test_a_hub_data_set_with_image_columns(tmp_path: Path) -> None:
    masks = [label_mask(1), label_mask(0, 2), None]
    rows = {"image": [sample_image(n).astype(np.uint8) for n in range(3)], "mask": masks, "source": ["s", "s", "t"]}
    features = datasets.Features(
        {"image": datasets.Image(), "mask": datasets.Image(), "source": datasets.Value("string")}
    )
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    data = read_annotated(tmp_path)["train"]
    assert data.counts() == {"background": 22 * ROW, "class 1": ROW, "class 2": ROW} and len(data.without_mask) == 1
    assert data.sources.tolist() == ["s", "s"] and data.target(1)[1, 0] == 2


def test_simulated_folders_know_their_classes(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1, 4)})
    record = {"command": "data simulate"}
    (tmp_path / "manifest.json").write_text(json.dumps(record), encoding="utf-8")
    names = {0: "background", 1: "rings", 2: "fibres", 4: "puncta"}
    (tmp_path / "index.json").write_text(json.dumps(index_of({}, mask_names=names)), encoding="utf-8")
    data = read_annotated(tmp_path)["all"]
    assert data.classes == ("background", "rings", "fibres", "puncta") and data.simulated
    assert class_warnings({"all": data}) == [
        f"{tmp_path.name}: no pixel of fibres is in all: the class can be neither learned nor scored"
    ]


def test_unreadable_images_are_listed_and_the_others_are_read(tmp_path: Path) -> None:
    pair_folder(tmp_path, {name: label_mask(1) for name in ("good", "size", "cut", "nan", "twice", "volume")})
    tifffile.imwrite(tmp_path / "masks/size.tif", label_mask(1, shape=(12, 15)))
    (tmp_path / "images/cut.tif").write_bytes(b"II*\0broken")
    tifffile.imwrite(tmp_path / "masks/nan.tif", np.full(SHAPE, np.nan, np.float32))
    tifffile.imwrite(tmp_path / "masks/twice_mask.tif", label_mask(1))
    Image.fromarray(label_mask(1)).save(tmp_path / "masks/twice.png")
    tifffile.imwrite(tmp_path / "images/volume.tif", np.zeros((5, *SHAPE), np.uint16), metadata={"axes": "ZYX"})
    data = read_annotated(tmp_path)["all"]
    assert data.image_ids.tolist() == ["good.tif"]
    assert set(data.failed) == {"size.tif", "cut.tif", "nan.tif", "twice.tif", "volume.tif"}
    assert data.failed["size.tif"].startswith("its mask size.tif has 12 x 15 pixels, the image 12 x 16")
    assert "NaN" in data.failed["nan.tif"] and "several masks (twice" in data.failed["twice.tif"]
    assert "holds 5 series" in data.failed["volume.tif"]


def test_a_folder_without_readable_masks_is_an_error_with_a_reason(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1, shape=(3, 3)), "b": None})
    with pytest.raises(UserError, match=r"1 without a mask, 1 failed; a\.tif: its mask a\.tif has 3 x 3 pixels"):
        read_annotated(tmp_path)


def test_only_empty_masks_are_an_error(tmp_path: Path) -> None:
    pair_folder(tmp_path / "one", {"a": label_mask(), "b": label_mask()})
    with pytest.raises(UserError, match="one: every mask is empty .2 masks"):
        read_annotated(tmp_path / "one")
    for split, value in (("train", 0), ("test", 1)):
        pair_folder(tmp_path / "two" / split, {"a": label_mask(value)})
    with pytest.raises(UserError, match=r"every mask of train is empty .1 mask\)"):
        read_annotated(tmp_path / "two")


def test_the_error_of_unknown_numbers_names_the_file_and_the_numbers(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1), "b": label_mask(1, 7, 9), "c": label_mask(7)})
    with pytest.raises(UserError, match=r"mask of b\.tif contains 7, 9, .*1 more masks"):
        read_annotated(tmp_path, classes=["rings"])


def test_nan_pixels_of_an_image_are_replaced(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1)})
    image = sample_image(0).astype(np.float32)
    image[3, 3] = np.nan
    tifffile.imwrite(tmp_path / "images/a.tif", image)
    assert np.isfinite(read_annotated(tmp_path)["all"].image(0)).all()


def test_the_fingerprint_depends_on_the_content(tmp_path: Path) -> None:
    one, same = (pair_folder(tmp_path / name, {"a": label_mask(1), "b": label_mask(2)}) for name in ("one", "same"))
    other = pair_folder(tmp_path / "other", {"a": label_mask(1), "b": label_mask(2, 2)})
    prints = [read_annotated(folder)["all"].fingerprint for folder in (one, same, other)]
    named = read_annotated(one, classes=["rings", "fibres"])["all"]
    assert prints[0] == prints[1] and len({*prints, named.fingerprint}) == 3
    assert named.take([0, 1]).fingerprint == named.fingerprint != named.take([1, 0]).fingerprint
    assert named[1:].image_ids.tolist() == ["b.tif"] and len(list(named)) == 2


def test_arrays_of_different_sizes_are_an_error() -> None:
    with pytest.raises(UserError, match="the mask of image 0 has 3 x 3 pixels"):
        from_arrays("cells", [np.eye(4)], [np.eye(3, dtype=np.uint8)])


def test_real_spots(tmp_path: Path) -> None:
    if "STEDFM_REAL_DATA" not in os.environ:
        pytest.skip("needs real data; set STEDFM_REAL_DATA to its folder")
    root = Path(os.environ["STEDFM_REAL_DATA"])
    data = read_annotated(root / "spot_segmentation", classes=["spots"])["all"]
    assert len(data) == 10 and not data.failed and data.classes == ("background", "spots")
    rings = {0: "background", 1: "rings", 2: "rings"}
    actin = read_annotated(root / "actin_raw", masks=root / "actin_masks", classes=rings)["all"]
    assert (
        actin.image_ids.tolist() == ["actin_1.tiff", "actin_2.tiff", "tubulin.tiff"] and len(actin.without_mask) == 3
    )
    assert actin.annotated[2] == 0 < actin.annotated[0]


@pytest.mark.parametrize("name", ["nowhere", "nowhere/", "a/b/c"])
def test_a_missing_folder_is_an_error(name: str) -> None:
    with pytest.raises(UserError, match="folder not found"):
        read_annotated(name)
