"""Pairing of mask files with images, and reading of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf.data.building.masks import find_masks, pair_masks, read_mask
from stedfm_hf.images import FoundImage, ImageReadError, find_images


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    return folder


def pairs(inputs: Path, masks: Path) -> tuple[list[str], dict[str, list[str]]]:
    found = pair_masks(find_images(inputs).images, masks)
    below = {path: [file.relative_to(masks).as_posix() for file in files] for path, files in found.masks.items()}
    return [image.path for image in found.images], below


def test_a_mask_folder_with_the_subfolders_of_the_input(tmp_path: Path) -> None:
    images = make(tmp_path / "images", "a/1.tif", "a/2.tif", "b_image.tif", "c.tif")
    masks = make(tmp_path / "masks", "a/1.tif", "a/2_mask.tiff", "b_mask.tif", "other.tif")
    assert pairs(images, masks) == (
        ["a/1.tif", "a/2.tif", "b_image.tif", "c.tif"],
        {"a/1.tif": ["a/1.tif"], "a/2.tif": ["a/2_mask.tiff"], "b_image.tif": ["b_mask.tif"]},
    )


def test_masks_next_to_the_images_are_not_images(tmp_path: Path) -> None:
    folder = make(tmp_path, "1_image.tif", "1_mask.tif", "2.tif", "2_mask.png", "3_mask.tif", "4.tif")
    assert pairs(folder, folder) == (
        ["1_image.tif", "2.tif", "4.tif"],
        {"1_image.tif": ["1_mask.tif"], "2.tif": ["2_mask.png"]},
    )


def test_files_in_a_mask_folder_inside_the_input_are_not_images(tmp_path: Path) -> None:
    make(tmp_path, "1.tif", "2.tif", "masks/1.tif", "masks/x.tif")
    assert pairs(tmp_path, tmp_path / "masks") == (["1.tif", "2.tif"], {"1.tif": ["1.tif"]})


def test_two_mask_candidates_are_both_listed(tmp_path: Path) -> None:
    images, masks = make(tmp_path / "images", "1.tif"), make(tmp_path / "masks", "1.tif", "1.tiff")
    assert pairs(images, masks)[1] == {"1.tif": ["1.tif", "1.tiff"]}


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (np.array([[0, 255]], np.uint8), "uint8"),
        (np.array([[0, 256]], np.int32), "uint16"),
        (np.array([[0.0, 3.0]], np.float32), "uint8"),
    ],
)
def test_whole_numbers_are_kept_for_every_dtype(tmp_path: Path, stored: np.ndarray, dtype: str) -> None:
    np.save(tmp_path / "m.npy", stored)
    mask = read_mask(tmp_path / "m.npy")
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, stored)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (np.array([[0.5, 1.0]]), "whole numbers"),
        (np.array([[np.nan, 1.0]]), "whole numbers"),
        (np.array([[-1, 1]], np.int16), "whole numbers"),
        (np.array([[65536, 1]]), "whole numbers"),
        (np.zeros((2, 3, 3), np.uint8), "has 2 channels"),
    ],
)
def test_other_values_are_refused(tmp_path: Path, stored: np.ndarray, words: str) -> None:
    np.save(tmp_path / "m.npy", stored)
    with pytest.raises(ImageReadError, match=f"^its mask m.npy.*{words}"):
        read_mask(tmp_path / "m.npy")


def test_the_message_names_a_damaged_mask_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "m.tif").write_bytes(b"II*\x00rubbish")
    with pytest.raises(ImageReadError, match="^its mask m.tif: ") as caught:
        read_mask(tmp_path / "m.tif")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "masks"),
    [
        (["a.tif", "a_mask.png", "b_mask.tif", "sub/a_mask.tif"], ["a_mask.png"]),
        (["a_image.tif", "a_mask.tif", "b_image.tif", "b_image_mask.tif"], ["a_mask.tif", "b_image_mask.tif"]),
        (["x/images/1.tif", "x/Labels/1.png", "x/Labels/2.png", "y/labels/1.tif"], ["x/Labels/1.png"]),
        (["images/train/1_image.tif", "masks/train/1_mask.tif", "masks/1_mask.tif"], ["masks/train/1_mask.tif"]),
        (["images/1.tif", "annotations/1.tif", "annotations.tif", "others/1.tif"], ["annotations/1.tif"]),
        (["images/1.tif", "images/1_region.tif", "masks/1_region.tif", "images.tif"], ["masks/1_region.tif"]),
    ],
)
def test_masks_are_found_among_the_files_of_a_folder(names: list[str], masks: list[str]) -> None:
    found = find_masks([FoundImage(Path(name), name) for name in names])
    assert sorted(each.path for each in found) == sorted(masks)
