"""Folders as annotation programs write them: Cellpose, YOLO, RoiSets from a Mac, names in two Unicode forms."""

from __future__ import annotations

import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf.labels.annotated import read_annotated
from stedfm_hf.runs import UserError
from tests.labels.annotated.annotated_data import label_mask, sample_image

FIELD = (96, 80)
YOLO = (
    "0 0.000000 0.000000 0.600000 0.000000 0.600000 0.500000 0.000000 0.500000\n"
    "1 0.500000 0.600000 1.000000 0.600000 1.000000 1.000000 0.500000 1.000000\n"
)


def write_image(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    ome = ".ome." in file.name
    tifffile.imwrite(file, array, photometric="minisblack", ome=ome, metadata={"axes": "YX"} if ome else None)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/c{}.ome.tif", "masks/c{}.tif"),
        ("c{}.ome.tif", "c{}_mask.ome.tif"),
        ("c{}.ome.tif", "c{}_mask.tif"),
        ("c{}.tif", "c{}_cp_masks.tif"),
        ("c{}.tif", "masks/c{}.tif"),
        ("IMAGES/c{}.TIF", "Masks/c{}.tif"),
        ("Train/images/c{}.tif", "Train/masks/c{}.tif"),
        ("day1/images/c{}.tif", "day1/masks/c{}.tif"),
        ("day1/c{}.tif", "day1/masks/c{}_mask.tif"),
    ],
)
def test_layouts_of_label_images(image: str, mask: str, tmp_path: Path) -> None:
    for number in range(2):
        write_image(tmp_path / image.format(number), sample_image(number))
        write_image(tmp_path / mask.format(number), label_mask(*[1] * (number + 1)))
    (data,) = read_annotated(tmp_path).values()
    assert data.pixels[:, 1].tolist() == [16, 32]
    assert data.without_mask == () and data.failed == {}


def test_masks_of_several_layouts(tmp_path: Path) -> None:
    files = [("day1/images/a.tif", "day1/masks/a.tif"), ("day2/a.tif", "day2/a_mask.tif"), ("b.tif", "b_cp_masks.tif")]
    for image, mask in files:
        write_image(tmp_path / image, sample_image(0))
        write_image(tmp_path / mask, label_mask(1))
    data = read_annotated(tmp_path)["all"]
    assert data.image_ids.tolist() == ["b.tif", "day1/images/a.tif", "day2/a.tif"] and data.without_mask == ()


def test_ilastik_numbers_the_background_too(tmp_path: Path) -> None:
    for name, mask in (("a_mask.tif", label_mask(1)), ("b_Simple Segmentation.tif", label_mask(1) + 1)):
        write_image(tmp_path / f"{name[0]}.tif", sample_image(0))
        write_image(tmp_path / name, mask)
    with pytest.raises(
        UserError, match=r"no pixel of 1 mask of ilastik is 0.* but 1 mask of other programs has pixels of 0"
    ):
        read_annotated(tmp_path)


def test_notes_on_images_are_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        with tifffile.TiffWriter(tmp_path / f"a{number}.tif") as tif:
            tif.write(sample_image(number), photometric="minisblack", metadata=None)
            if number:
                preview = np.zeros((3, 4), np.uint8)
                tif.write(preview, photometric="minisblack", subfiletype=1, metadata=None)
        write_image(tmp_path / f"a{number}_mask.tif", label_mask(1))
    read_annotated(tmp_path)
    assert capsys.readouterr().err == "stedfm: note: 2 files: preview pages are left out (a1.tif, a2.tif)\n"


def test_names_in_two_unicode_forms(tmp_path: Path) -> None:
    for number in range(3):
        name = f"Zürich_{number}.tif"
        write_image(tmp_path / "images" / unicodedata.normalize("NFC", name), sample_image(number))
        write_image(tmp_path / "masks" / unicodedata.normalize("NFD", name), label_mask(1))
    write_image(tmp_path / "masks" / unicodedata.normalize("NFD", "Zürich_0_region.tif"), label_mask(1, 1))
    data = read_annotated(tmp_path)["all"]
    assert len(data) == 3
    region = data.region(data.image_ids.tolist().index("Zürich_0.tif"))
    assert region is not None and region.sum() == 32


def test_pickles_of_cellpose_are_reported_and_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        write_image(tmp_path / f"a{number}.tif", sample_image(number))
        pickled = np.array({"masks": label_mask(1)}, dtype=object)
        np.save(tmp_path / f"a{number}_seg.npy", pickled, allow_pickle=True)
    with pytest.raises(UserError, match="2 without a mask, 0 failed"):
        read_annotated(tmp_path)
    assert capsys.readouterr().err.count("note: 2 files with pickled objects, which are never loaded") == 1
    write_image(tmp_path / "a0_cp_masks.tif", label_mask(1))
    data = read_annotated(tmp_path)["all"]
    assert (data.image_ids.tolist(), data.without_mask) == (["a0.tif"], ("a1.tif",))
    assert "note: 1 file with pickled objects, which are never loaded (a1_seg.npy)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a_cp_masks.tif", "a_Object Identities.tif", "a.stardist.tif"])
def test_numbers_of_objects_are_one_class(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = np.zeros((40, 300), np.uint16)
    objects[0] = np.arange(300)
    write_image(tmp_path / "a.tif", sample_image(0, objects.shape))
    write_image(tmp_path / name, objects)
    data = read_annotated(tmp_path)["all"]
    assert data.counts() == {"background": 40 * 300 - 299, "object": 299}
    np.testing.assert_array_equal(data.target(0), objects > 0)
    assert (
        capsys.readouterr().err.count("note: 1 mask of Cellpose or a similar program with numbered objects; all") == 1
    )
    assert read_annotated(tmp_path, classes=["cell"])["all"].counts()["cell"] == 299
    assert read_annotated(tmp_path, classes=["background", "cell"])["all"].counts()["cell"] == 299
    (tmp_path / name).rename(tmp_path / "a_mask.tif")
    with pytest.raises(UserError, match="If each object has a number, save 1 for all objects"):
        read_annotated(tmp_path)


def test_a_roiset_that_macos_packed(tmp_path: Path) -> None:
    roifile = pytest.importorskip("roifile")
    write_image(tmp_path / "images" / "c.tif", sample_image(0, FIELD))
    (tmp_path / "masks").mkdir()
    with zipfile.ZipFile(tmp_path / "masks" / "c.zip", "w") as archive:
        for number, (x, y, side) in enumerate([(20, 20, 10), (50, 60, 20)], 1):
            corners = np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.int32)
            roi = roifile.ImagejRoi.frompoints(corners)
            roi.name = f"ring-{number}"
            archive.writestr(f"rois/ring-{number}.roi", roi.tobytes())
            archive.writestr(f"__MACOSX/rois/._ring-{number}.roi", b"\x00\x05\x16\x07" + bytes(90))
        archive.writestr("rois/.DS_Store", b"x")
    (tmp_path / "masks" / "._c.zip").write_bytes(b"\x00\x05\x16\x07")
    data = read_annotated(tmp_path)["all"]
    assert data.counts() == {"background": 96 * 80 - 500, "ring": 500}


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        (None, None, ("class 0", "class 1")),
        (None, ["rings", "fibres"], ("rings", "fibres")),
        (None, {0: "rings", 1: "fibres"}, ("rings", "fibres")),
        (("labels/classes.txt", "rings\nfibres\n"), None, ("rings", "fibres")),
        (("data.yaml", "names:\n  0: rings\n  1: fibres\n"), None, ("rings", "fibres")),
        (("data.yaml", "train: images\nnames: [rings, fibres]\n"), None, ("rings", "fibres")),
    ],
)
def test_polygons_of_yolo_are_fractions_of_the_image(
    names: tuple[str, str] | None,
    classes: list[str] | dict[int, str] | None,
    expected: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(2):
        write_image(tmp_path / "images" / f"c{number}.tif", sample_image(number, FIELD))
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"c{number}.txt").write_text(YOLO)
    if names:
        (tmp_path / names[0]).write_text(names[1])
    data = read_annotated(tmp_path, classes=classes)["all"]
    assert set(data.classes) == set(expected)
    assert [data.pixels[:, data.classes.index(name)].tolist() for name in expected] == [[2304] * 2, [1520] * 2]
    assert capsys.readouterr().err.count("note: the coordinates in 2 text masks are between 0 and 1") == 1


def test_the_first_class_of_yolo_is_0_even_if_no_image_shows_it(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "c.tif", sample_image(0, FIELD))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "c.txt").write_text(YOLO.splitlines()[1])
    counts = read_annotated(tmp_path, classes=["rings", "fibres"])["all"].counts()
    assert counts == {"rings": 0, "fibres": 1520}


def test_splits_of_yolo_inside_both_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / f"{split}.tif", sample_image(len(split), FIELD))
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / f"{split}.txt").write_text(YOLO)
    assert {name: data.image_ids.tolist() for name, data in read_annotated(tmp_path).items()} == {
        "train": ["train/train.tif"],
        "validation": ["val/val.tif"],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0.5 0.5 0.2 0.1", "line 1 is a box"),
        ("0 0.1 0.1 0.9 0.1 1.7 0.9", "neither pixels nor fractions"),
    ],
)
def test_other_text_of_yolo_is_refused(text: str, words: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "c.tif", sample_image(0, FIELD))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "c.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        read_annotated(tmp_path)


def test_images_with_the_same_name_fail_by_name_and_previews_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.tif", "b.tif", "b.tiff", "c.tif"):
        write_image(tmp_path / "images" / name, sample_image(0))
    (tmp_path / "images" / "a.png").write_bytes(b"preview")
    for name in "abc":
        write_image(tmp_path / "masks" / f"{name}.tif", label_mask(1))
    data = read_annotated(tmp_path)["all"]
    assert data.image_ids.tolist() == ["a.tif", "c.tif"]
    assert data.failed["b.tif"].startswith("has the same name as b.tiff, so b.tif could be the mask of either")
    assert "note: 1 file skipped as a preview of an image with the same name: a.png" in capsys.readouterr().err


def test_a_mask_for_each_object_is_refused(tmp_path: Path) -> None:
    for name in "xy":
        write_image(tmp_path / "stage1" / name / "images" / f"{name}.tif", sample_image(0))
        for number in range(3):
            write_image(tmp_path / "stage1" / name / "masks" / f"{number}.tif", label_mask(1))
    with pytest.raises(UserError, match=r"a mask for each object \(3 files in stage1/x/masks\); combine"):
        read_annotated(tmp_path)


def test_outlines_in_linked_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "data" / "images" / "day1" / "a.tif", sample_image(0))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("ring 0 0 5 0 5 5")
    (tmp_path / "data" / "masks").mkdir()
    try:
        (tmp_path / "data" / "masks" / "day1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    assert read_annotated(tmp_path / "data")["all"].image_ids.tolist() == ["day1/a.tif"]
