"""Masks from files of every type: the pixels are the annotated ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stedfm_hf.images import ImageReadError
from stedfm_hf.labels.annotated import read_annotated
from stedfm_hf.labels.annotated.annotation_files import read_mask
from stedfm_hf.labels.annotated.outlines import Outline, fill, read_outlines
from stedfm_hf.labels.annotated.stored import StoredMask, count_pixels
from stedfm_hf.runs import UserError
from tests.labels.annotated.annotated_data import SHAPE, label_mask, pair_folder, sample_image

roifile = pytest.importorskip("roifile")


def rectangle(name: str, top: int, left: int, bottom: int, right: int, group: int = 0) -> Any:
    roi = roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.RECT, top=top, left=left, bottom=bottom, right=right, name=name, version=228
    )
    roi.group = group
    return roi


def test_planes_of_a_tiff_are_classes(tmp_path: Path) -> None:
    planes = np.stack([label_mask(1, 1), label_mask(0, 1), label_mask()])
    colour: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate"}
    kinds: dict[str, dict[str, Any]] = {
        "colour": colour,
        "grey": {"photometric": "minisblack"},
        "pages": {"photometric": "minisblack", "metadata": None},
    }
    for name, options in kinds.items():
        file = tmp_path / f"{name}.tif"
        tifffile.imwrite(file, planes, **options)
        np.testing.assert_array_equal(read_mask(file, SHAPE).planes, planes)
    # The image reader merges three equal planes of a colour TIFF to one grey plane.
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros((3, *SHAPE), np.uint8), **colour)
    assert read_mask(tmp_path / "empty.tif", SHAPE).planes.shape == (3, *SHAPE)


def test_plane_names_are_classes_and_region_is_the_annotated_area(tmp_path: Path) -> None:
    planes = np.stack([label_mask(1), label_mask(0, 1), label_mask(1, 1, 1)])
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", sample_image(0))
    names = {"axes": "CYX", "Channel": {"Name": ["rings", "fibres", "Region"]}}
    tifffile.imwrite(tmp_path / "masks/a.ome.tif", planes, photometric="minisblack", metadata=names)
    (tmp_path / "masks/a.ome.tif").rename(tmp_path / "masks/a.tif")
    data = read_annotated(tmp_path, classes=["fibres", "rings"])["all"]
    assert data.classes == ("fibres", "rings") and data.target_type == "multi_label"
    assert data.target(0).dtype == np.uint8 and data.target(0)[:, :, 0].tolist()[0][:3] == [0, 1, 0]
    region = data.region(0)
    assert region is not None and region.sum() == 3 * SHAPE[1]
    np.savez(tmp_path / "m.npz", rings=planes[0], fibres=planes[1])
    assert read_mask(tmp_path / "m.npz", SHAPE).keys == ("rings", "fibres")


def test_palettes_are_read_as_indices_and_colours_are_an_error(tmp_path: Path) -> None:
    image = Image.fromarray(label_mask(1, 2))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png", SHAPE).planes[0], label_mask(1, 2))
    image.convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(ImageReadError, match=r"its mask colours\.png is a colour image"):
        read_mask(tmp_path / "colours.png", SHAPE)
    Image.fromarray(label_mask(1)).save(tmp_path / "lossy.jpg")
    with pytest.raises(ImageReadError, match="JPEG, which changes pixel values"):
        read_mask(tmp_path / "lossy.jpg", SHAPE)


def test_soft_masks_are_fractions(tmp_path: Path) -> None:
    soft = np.stack([label_mask(1), label_mask(0, 1)]).astype(np.float32) / 3
    pair_folder(tmp_path, {"a": soft, "b": np.zeros_like(soft)})
    data = read_annotated(tmp_path)["all"]
    assert data.target_type == "soft" and data.classes == ("class 1", "class 2")
    np.testing.assert_array_equal(data.target(0), soft)
    assert data.target(1).dtype == np.float32 and data.annotated[0] == pytest.approx(2 / 12)
    with pytest.raises(UserError, match=r"mask of a\.tif contains fractions; use the target type soft"):
        read_annotated(tmp_path, target_type="multi_label")
    tifffile.imwrite(tmp_path / "masks/b.tif", soft * 4)
    assert "scale soft masks to numbers from 0 to 1" in read_annotated(tmp_path)["all"].failed["b.tif"]


def test_imagej_rois_fill_the_pixels_that_imagej_selects(tmp_path: Path) -> None:
    """An ImageJ rectangle from 2 to 5 contains the pixels 2, 3 and 4."""
    rois = [rectangle("rings-1", 1, 2, 4, 5), rectangle("rings-2", 0, 9, 2, 11), rectangle("0003-0004", 6, 0, 8, 3)]
    roifile.roiwrite(tmp_path / "a.zip", rois)
    mask = read_mask(tmp_path / "a.zip", SHAPE)
    assert mask.keys == ("rings", "object") and mask.outlines
    expected = np.zeros(SHAPE, np.uint8)
    expected[1:4, 2:5] = expected[0:2, 9:11] = 1
    np.testing.assert_array_equal(mask.planes[0], expected)
    assert mask.planes[1].sum() == 6 and mask.planes[1][6:8, 0:3].all()


def test_the_group_of_a_roi_is_its_class(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number, name in enumerate("abc"):
        tifffile.imwrite(tmp_path / f"images/{name}.tif", sample_image(number))
    roifile.roiwrite(tmp_path / "masks/a_RoiSet.zip", [rectangle("x", 0, 0, 2, 2, group=2)])
    rectangle("y", 0, 0, 2, 2, group=1).tofile(tmp_path / "masks/b.roi")
    data = read_annotated(tmp_path, classes=["rings", "fibres"])["all"]
    assert data.classes == ("rings", "fibres") and data.target_type == "multi_label" and len(data.without_mask) == 1
    assert data.counts() == {"rings": 4, "fibres": 4}
    single = read_annotated(tmp_path, target_type="single_label")["all"]
    assert single.classes == ("background", "class 1", "class 2") and single.target(0)[0, 0] == 2
    with pytest.raises(UserError, match="has outlines of 2, but the classes are rings"):
        read_annotated(tmp_path, classes=["rings"])


def test_only_the_number_of_the_roi_manager_is_removed_from_roi_names(tmp_path: Path) -> None:
    names = ["VGLUT1", "VGLUT2", "VGLUT2-1", "Region", "region-1", "Background"]
    rois = [rectangle(name, 0, 3 * column, 2, 3 * column + 2) for column, name in enumerate(names[:5])]
    roifile.roiwrite(tmp_path / "a.zip", [*rois, rectangle(names[5], 4, 0, 6, 2)])
    mask = read_mask(tmp_path / "a.zip", SHAPE)
    assert mask.keys == ("VGLUT1", "VGLUT2") and mask.planes.sum(axis=(1, 2)).tolist() == [4, 8]
    assert mask.region is not None and mask.region.sum() == 8


def test_rois_without_an_area_or_of_several_planes_are_an_error(tmp_path: Path) -> None:
    line = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.LINE, name="axis", version=228)
    line.tofile(tmp_path / "a.roi")
    with pytest.raises(ImageReadError, match=r"its mask a\.roi contains ROI 'axis', which is not an area \(line\)"):
        read_mask(tmp_path / "a.roi", SHAPE)
    first, second = rectangle("x", 0, 0, 2, 2), rectangle("y", 0, 0, 2, 2)
    first.position, second.position = 1, 2
    roifile.roiwrite(tmp_path / "b.zip", [first, second])
    with pytest.raises(ImageReadError, match="2 planes of a stack"):
        read_mask(tmp_path / "b.zip", SHAPE)
    (tmp_path / "c.zip").write_bytes(b"no zip at all")
    with pytest.raises(ImageReadError, match="is not an ImageJ ROI, or is damaged"):
        read_mask(tmp_path / "c.zip", SHAPE)


def test_the_error_without_roifile_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rectangle("x", 0, 0, 2, 2).tofile(tmp_path / "a.roi")
    tifffile.imwrite(tmp_path / "a.tif", sample_image(0))
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(UserError, match=r'a\.roi: .*pip install "stedfm-hf\[roi\]"'):
        read_annotated(tmp_path)


def test_polygons_of_both_layouts(tmp_path: Path) -> None:
    file = tmp_path / "a_Julia.polys.txt"
    file.write_text(
        "# z class points\n0 1 [(0, 0), (2, 0), (2, 2), (0, 2)]\n\n0 3 [(5.0, 5.0), (8.0, 5.0), (8.0, 8.0)]\n",
        encoding="utf-8",
    )
    mask = read_mask(file, SHAPE)
    assert mask.keys == (1, 3) and mask.planes[0][:3, :3].all() and mask.planes[0].sum() == 9
    file.write_text("spine 0 0 2 0 2 2 0 2\n0,0, 3,0, 3,3\n2 4 4 6 4 6 6", encoding="utf-8")
    assert [outline.key for outline in read_outlines(file)] == ["spine", "object", 2]
    file.write_text("", encoding="utf-8")
    empty = read_mask(file, SHAPE)
    assert empty.keys == () and empty.planes.shape == (1, *SHAPE) and not empty.planes.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ring 0 0 1 1", "line 1 is not a polygon"),
        ("0 1 [(0, 0), (1, 1), (2, evil())]", "line 1 is not a polygon"),
        ("1 0 0 2 0 2 nan", "line 1 is not a polygon"),
        ("0 1 [(0, 0), (1, 0), (1, 1)]\n1 1 [(0, 0), (1, 0), (1, 1)]", "2 planes of a stack"),
        ("ring 90 90 95 90 95 95", "outside of the 12 x 16 pixels"),
    ],
)
def test_invalid_polygon_lines_are_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ImageReadError, match=message):
        read_mask(tmp_path / "a.txt", SHAPE)


def test_polygons_next_to_the_images(tmp_path: Path) -> None:
    """A text file next to an image is its mask only if its name ends so: microscopes also write text files."""
    for number, name in enumerate("abc"):
        tifffile.imwrite(tmp_path / f"{name}.tif", sample_image(number))
    (tmp_path / "a_Julia.polys.txt").write_text("0 3 [(0, 0), (4, 0), (4, 4)]\n0 6 [(2, 0), (7, 5), (7, 7)]", "utf-8")
    (tmp_path / "b.polys.txt").write_text("", encoding="utf-8")
    (tmp_path / "c.txt").write_text("laser power 12", encoding="utf-8")
    data = read_annotated(tmp_path, classes={0: "background", 3: "spine", 6: "spine"})["all"]
    assert data.image_ids.tolist() == ["a.tif", "b.tif"] and len(data.without_mask) == 1 and not data.failed
    # Outlines of a single class are single labels with a background.
    assert data.classes == ("background", "spine") and data.target(0)[2, 3] == data.target(0)[6, 7] == 1
    # Two outlines of one class may overlap; their pixels count once.
    assert data.counts()["spine"] == data.target(0).sum() == 12 * 16 * data.annotated[0]
    assert not data.target(1).any()


def test_planes_of_a_stack_are_images_of_one_source_with_their_masks(tmp_path: Path) -> None:
    masks = np.stack([label_mask(1), np.zeros(SHAPE, np.uint8), label_mask(0, 1)])
    for name in "ab":
        for kind, array in (("images", np.stack([sample_image(number) for number in range(3)])), ("labels", masks)):
            (tmp_path / kind).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / kind / f"{name}.tif", array, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels" / "b.tif", masks[:2], photometric="minisblack")
    with pytest.raises(UserError, match=r"a.tif: holds 3 series \(.*\); use --series all to read each as an image"):
        read_annotated(tmp_path)
    data = read_annotated(tmp_path, series="all")["all"]
    assert data.image_ids.tolist() == ["a.tif[0]", "a.tif[1]", "a.tif[2]"] and len(set(data.sources)) == 1
    assert (
        data.failed["b.tif[2]"] == "its mask b.tif has 2 planes; save one plane for each of the 3 series of the image"
    )
    for number, mask in enumerate(masks):
        assert np.array_equal(data.target(number), mask)
        assert np.array_equal(data.stored(number).array[0], sample_image(number))
    tifffile.imwrite(tmp_path / "labels" / "b.tif", masks, imagej=True, metadata={"axes": "CYX"})
    data = read_annotated(tmp_path, series="all")["all"]
    assert not data.failed and len(data) == 6
    assert all(np.array_equal(data.target(3 + number), mask) for number, mask in enumerate(masks)), "channels as well"
    (tmp_path / "labels" / "b.tif").unlink()
    (tmp_path / "labels" / "b.polys.txt").write_text("0 [(0, 0), (1, 0), (1, 1)]")
    data = read_annotated(tmp_path, series="all")["all"]
    assert data.failed["b.tif[0]"].endswith(" contains outlines; save a plane for each of the 3 series of the image")


def test_two_candidate_folders_of_masks_are_an_error(tmp_path: Path) -> None:
    pair_folder(tmp_path, {"a": label_mask(1)})
    (tmp_path / "Labels").mkdir()
    with pytest.raises(UserError, match="masks and Labels could both be the masks; name .* with --masks"):
        read_annotated(tmp_path)
    (tmp_path / "masks").rename(tmp_path / "other")
    (tmp_path / "other" / "a.tif").rename(tmp_path / "Labels" / "a.tif")
    assert read_annotated(tmp_path)["all"].counts()["class 1"] == SHAPE[1]


def test_an_image_without_finite_pixels_fails(tmp_path: Path) -> None:
    nothing = np.full(SHAPE, np.nan, np.float32)
    some = sample_image(0).astype(np.float32)
    some[0] = np.nan
    for name, image in (("a", nothing), ("b", some)):
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / f"{name}_mask.tif", label_mask(1))
    data = read_annotated(tmp_path)["all"]
    assert data.image_ids.tolist() == ["b.tif"] and "has a channel without finite numbers" in data.failed["a.tif"]
    assert not data.image(0)[0, 0].any()


def test_paths_inside_of_an_outline_are_holes() -> None:
    square = [np.array([[a, a], [b, a], [b, b], [a, b]], float) for a, b in ((-0.5, 7.5), (1.5, 3.5))]
    mask = fill([Outline("cell", tuple(square))], SHAPE)
    assert mask.planes[0].sum() == 64 - 4 and not mask.planes[0][2:4, 2:4].any()


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=30))
def test_counting_pixels_is_exact(values: list[int]) -> None:
    planes = np.array(values, np.uint16).reshape(1, 1, -1)
    facts = count_pixels(StoredMask(planes))
    assert facts.values == {value: values.count(value) for value in set(values)}
    assert facts.touched == len(values) - values.count(0)
