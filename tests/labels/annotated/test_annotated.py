"""Annotated images of folders and repositories: what is read, what is refused, and what cannot be read."""

from __future__ import annotations

import json
import os
import pickle
import re
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
from tests.labels.annotated.annotated_data import SHAPE, label_mask, masked_repo, pair_folder, picture

ROW = SHAPE[1]


def test_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    pair_folder(tmp_path / "cells", {"a": label_mask(1, 2), "b": label_mask(2, 255), "c": None})
    splits = read_annotated(tmp_path / "cells", classes=["rings", "fibres"])
    data = splits["all"]
    assert list(splits) == ["all"] and data.name == "cells" and len(data.unmasked) == 1 and not data.failed
    assert data.classes == ("background", "rings", "fibres") and data.target_type == "single_label"
    image, target = data[1]
    assert image.shape == (1, *SHAPE) and image.dtype == np.float32 and 0 <= image.min() <= image.max() <= 1
    assert target.dtype == np.int64 and target[0].tolist() == [2] * ROW and target[1].tolist() == [255] * ROW
    assert data.counts() == {"background": 20 * ROW, "rings": ROW, "fibres": 2 * ROW}
    assert data.annotated[0] == pytest.approx(2 / 12) and data.annotated[1] == pytest.approx(1 / 12)
    files = [tmp_path / "cells" / "images" / name for name in ("a.tif", "b.tif")]
    assert data.sources.tolist() == data.contents.tolist() == [file_id(file) for file in files]
    assert data.region(0) is None and data.image_ids.tolist() == ["a.tif", "b.tif"]


def test_masks_beside_their_images_and_regions(tmp_path: Path) -> None:
    region = np.zeros(SHAPE, bool)
    region[:4] = True
    for number, name in enumerate(("x", "y")):
        tifffile.imwrite(tmp_path / f"{name}_image.tif", picture(number))
        Image.fromarray(label_mask(255)).save(tmp_path / f"{name}_mask.png")
    tifffile.imwrite(tmp_path / "x_region.tif", region.astype(np.uint8))
    data = read_annotated(tmp_path, source_pattern=r"(\w)_image")["all"]
    assert data.image_ids.tolist() == ["x_image.tif", "y_image.tif"] and data.sources.tolist() == ["x", "y"]
    # Nothing but 0 and 255 in the whole set: 255 is the class.
    assert data.classes == ("background", "class 1") and data.target(0).sum() == ROW
    np.testing.assert_array_equal(data.region(0), region)
    assert data.region(1) is None


@pytest.mark.parametrize("around", ["splits around", "splits within", "beside"])
def test_folders_of_splits(tmp_path: Path, around: str) -> None:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            place = tmp_path / (f"{split}/{kind}" if around == "splits around" else f"{kind}/{split}")
            place = tmp_path / split if around == "beside" else place
            place.mkdir(parents=True, exist_ok=True)
            end = "_mask" if around == "beside" and kind == "masks" else ""
            tifffile.imwrite(place / f"a{end}.tif", picture(0) if kind == "images" else label_mask(1))
    splits = read_annotated(tmp_path)
    assert list(splits) == ["train", "validation"]
    assert all(
        len(data) == 1 and data.image_ids[0].endswith("/a.tif") or around == "splits within"
        for data in splits.values()
    )
    assert list(read_annotated(tmp_path, "validation")) == ["validation"]
    with pytest.raises(UserError, match="no split 'test'; there are train, validation"):
        read_annotated(tmp_path, "test")


def test_a_folder_of_masks_elsewhere(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1)})
    data = read_annotated(tmp_path / "images", masks=tmp_path / "masks")["all"]
    assert data.counts()["class 1"] == ROW
    with pytest.raises(UserError, match="no such folder of masks"):
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
    assert len(train) == 2 and train.unmasked == ("train/1",) and train.image_ids.tolist() == ["train/0", "train/2"]
    assert train.target(1)[0].tolist() == [2] * ROW and train.sources.tolist() == ["s1", "s2"]
    # The crop says which intensities mean 0 and 1: it is scaled once.
    np.testing.assert_allclose(train.image(1)[0], np.clip(picture(2) / 100, 0, 1), rtol=1e-6)
    # One split alone numbers the classes as all do.
    assert read_annotated(repo, "test")["test"].classes == train.classes
    assert read_annotated(repo, "test")["test"].fingerprint == splits["test"].fingerprint
    assert class_warnings(splits) == [
        "crops: no pixel of puncta is in test, but there are some in train: only false marks of it count"
    ]
    copy = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(copy.target(0), train.target(0))
    with pytest.raises(UserError, match="is a data set, which has masks"):
        read_annotated(repo, masks=tmp_path)


def test_a_repository_without_masks(tmp_path: Path) -> None:
    repo = masked_repo(tmp_path / "crops", {"train": [(None, "s1")]})
    with pytest.raises(UserError, match="no image has a mask"):
        read_annotated(repo)


def test_a_hub_data_set_of_pictures(tmp_path: Path) -> None:
    masks = [label_mask(1), label_mask(0, 2), None]
    rows = {"image": [picture(n).astype(np.uint8) for n in range(3)], "mask": masks, "source": ["s", "s", "t"]}
    features = datasets.Features(
        {"image": datasets.Image(), "mask": datasets.Image(), "source": datasets.Value("string")}
    )
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    data = read_annotated(tmp_path)["train"]
    assert data.counts() == {"background": 22 * ROW, "class 1": ROW, "class 2": ROW} and len(data.unmasked) == 1
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
        f"{tmp_path.name}: no pixel of fibres is in all: it can be neither learned nor scored"
    ]


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
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


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1, shape=(3, 3)), "b": None})
    with pytest.raises(UserError, match=r"1 have none, 1 failed; a\.tif: its mask a\.tif has 3 x 3 pixels"):
        read_annotated(tmp_path)


def test_empty_masks_only(tmp_path: Path) -> None:
    pair_folder(tmp_path / "one", {"a": label_mask(), "b": label_mask()})
    with pytest.raises(UserError, match="one: every mask is empty .2 masks"):
        read_annotated(tmp_path / "one")
    for split, value in (("train", 0), ("test", 1)):
        pair_folder(tmp_path / "two" / split, {"a": label_mask(value)})
    with pytest.raises(UserError, match=r"every mask of train is empty .1 mask\)"):
        read_annotated(tmp_path / "two")


def test_unknown_numbers_name_the_file_and_them(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1), "b": label_mask(1, 7, 9), "c": label_mask(7)})
    with pytest.raises(UserError, match=r"mask of b\.tif holds 7, 9, .*1 more masks"):
        read_annotated(tmp_path, classes=["rings"])


def test_nan_pixels_of_an_image_are_no_nan(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1)})
    image = picture(0).astype(np.float32)
    image[3, 3] = np.nan
    tifffile.imwrite(tmp_path / "images/a.tif", image)
    assert np.isfinite(read_annotated(tmp_path)["all"].image(0)).all()


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one, same = (pair_folder(tmp_path / name, {"a": label_mask(1), "b": label_mask(2)}) for name in ("one", "same"))
    other = pair_folder(tmp_path / "other", {"a": label_mask(1), "b": label_mask(2, 2)})
    prints = [read_annotated(folder)["all"].fingerprint for folder in (one, same, other)]
    named = read_annotated(one, classes=["rings", "fibres"])["all"]
    assert prints[0] == prints[1] and len({*prints, named.fingerprint}) == 3
    assert named.take([0, 1]).fingerprint == named.fingerprint != named.take([1, 0]).fingerprint
    assert named[1:].image_ids.tolist() == ["b.tif"] and len(list(named)) == 2


def test_arrays_of_different_sizes_are_refused() -> None:
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
    assert actin.image_ids.tolist() == ["actin_1.tiff", "actin_2.tiff", "tubulin.tiff"] and len(actin.unmasked) == 3
    assert actin.annotated[2] == 0 < actin.annotated[0]


def test_the_code_of_the_page_on_annotations_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "annotate.md").read_text(encoding="utf-8")
    exec("".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)), {})
    lines = capsys.readouterr().out.splitlines()
    counts = "{'background': 11220, 'rings': 300, 'fibres': 768}"
    assert lines == [f"3 ('background', 'rings', 'fibres') single_label {counts} {{}}", "1 1"]
    mask = np.full((64, 64), 7, np.uint8)
    tifffile.imwrite("cells/masks/2.tif", mask)
    with pytest.raises(UserError) as refused:
        read_annotated("cells", classes=["rings", "fibres"])
    assert str(refused.value) in page


@pytest.mark.parametrize("name", ["nowhere", "nowhere/", "a/b/c"])
def test_a_folder_that_is_not_there_is_said_at_once(name: str) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        read_annotated(name)
