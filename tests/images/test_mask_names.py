"""Which file is the mask of which image, by the names that programs give to masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf.images import FoundImage, find_images
from stedfm_hf.images.mask_names import find_masks, is_pickled, pair_masks
from stedfm_hf.runs import UserError


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


NFD_UE = "u\u0308"


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("c.ome.tif", "c_mask.ome.tif"),
        ("c.ome.tif", "c_mask.tif"),
        ("c.OME.TIF", "c_MASK.tiff"),
        ("c.tif", "c_cp_masks.tif"),  # Cellpose
        ("c.png", "c_cp_masks.png"),
        ("c.png", "c_masks.png"),
        ("c_img.png", "c_masks.png"),
        ("c.tif", "c_labels.tif"),  # StarDist
        ("c.ome.tif", "c.ome_labels.tif"),
        ("c.tif", "c.stardist.tif"),
        ("c.tif", "c-labels.tif"),  # Fiji
        ("c.tif", "Mask of c.tif"),
        ("c.tif", "Mask of c.tif.tif"),
        ("c.tif", "Count Masks of c.tif"),
        ("c.tif", "c_Simple Segmentation.tif"),  # ilastik
        ("c.tif", "c_Object Identities.tif"),
        ("c.tif", "c_Object Predictions.tif"),
        ("c.tif", "c_Probabilities.tif"),
        ("Z\u00fcrich.tif", f"Z{NFD_UE}rich_mask.tif"),
        (f"Z{NFD_UE}rich.tif", "Z\u00fcrich_mask.tif"),
    ],
)
def test_every_program_s_masks_are_paired_and_left_out(image: str, mask: str, tmp_path: Path) -> None:
    folder = make(tmp_path, image, mask, "other.tif")
    assert pairs(folder, folder) == ([image, "other.tif"], {image: [mask]})
    assert [each.path for each in find_masks(find_images(folder).images)] == [mask]
    apart = make(tmp_path / "apart", f"images/{image}", f"masks/{mask}")
    assert pairs(apart / "images", apart / "masks")[1] == {image: [mask]}
    assert [each.path for each in find_masks(find_images(apart).images)] == [f"masks/{mask}"]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("c.ome.tif", "c.tif"),
        ("c.tif", "c.ome.tif"),
        ("c.TIF", "c.png"),
        ("Z\u00fcrich 1.tif", f"Z{NFD_UE}rich 1.tif"),
        (f"Z{NFD_UE}rich/1.tif", "Z\u00fcrich/1.tif"),
    ],
)
@pytest.mark.parametrize("folders", [("images", "masks"), ("Images", "MASKS"), ("img", "labels"), (".", "masks")])
def test_masks_in_a_folder_have_the_names_of_the_images(
    image: str, mask: str, folders: tuple[str, str], tmp_path: Path
) -> None:
    folder = make(tmp_path, f"{folders[0]}/{image}", f"{folders[1]}/{mask}")
    images, masks = folder / folders[0], folder / folders[1]
    assert pairs(images, masks)[1] == {image: [mask]}
    assert [each.path for each in find_masks(find_images(folder).images)] == [f"{folders[1]}/{mask}"]


def test_the_best_mask_of_a_program_is_used_and_other_results_are_no_images(tmp_path: Path) -> None:
    names = ["a_cp_masks.tif", "a_flows.tif", "a_cp_output.png", "b_Simple Segmentation.tif", "b_Probabilities.tif"]
    folder = make(tmp_path, "a.tif", "b.tif", *names)
    assert pairs(folder, folder) == (
        ["a.tif", "b.tif"],
        {"a.tif": ["a_cp_masks.tif"], "b.tif": ["b_Simple Segmentation.tif"]},
    )
    assert {each.path for each in find_masks(find_images(folder).images)} == set(names)
    assert pair_masks(find_images(folder).images, folder).notes.lines() == [
        "note: 1 mask not used, because the same program wrote a better one for the image: b_Probabilities.tif"
    ]


def test_masks_without_an_image_are_reported(tmp_path: Path) -> None:
    folder = make(tmp_path, "images/a.tif", "masks/a.tif", "masks/a_region.tif", "masks/b.tif", "masks/c.tif")
    found = pair_masks(find_images(folder / "images").images, folder / "masks")
    assert found.notes.lines() == ["note: 2 masks without an image of the same name: b.tif, c.tif"]
    beside = make(tmp_path / "beside", "a.tif", "a_mask.tif", "b_mask.tif", "b.labels.tif")
    found = pair_masks(find_images(beside).images, beside)
    assert [each.path for each in found.notes.without_image] == ["b_mask.tif"]


def test_a_mask_belongs_to_the_image_with_its_whole_name(tmp_path: Path) -> None:
    folder = make(tmp_path, "c.tif", "c_image.tif", "c_mask.tif")
    assert pairs(folder, folder)[1] == {"c.tif": ["c_mask.tif"]}


def test_corrected_results_of_segment_are_masks_in_a_folder_of_masks(tmp_path: Path) -> None:
    names = [f"masks/a.ome.tif.{kind}1.tif" for kind in ("labels", "objects", "probabilities")]
    folder = make(tmp_path, "images/a.ome.tif", *names)
    assert pairs(folder / "images", folder / "masks")[1] == {"a.ome.tif": ["a.ome.tif.labels1.tif"]}
    make(folder / "images", "a.ome.tif.labels1.tif")
    assert pairs(folder / "images", folder / "images") == (["a.ome.tif"], {})


def test_masks_next_to_the_images_are_no_images_if_other_masks_are_given(tmp_path: Path) -> None:
    folder = make(tmp_path, "images/a.tif", "images/a_cp_masks.tif", "masks/a.tif")
    found = pair_masks(find_images(folder / "images").images, folder / "masks")
    assert [each.path for each in found.images] == ["a.tif"]
    assert found.masks == {"a.tif": (folder / "masks" / "a.tif",)}
    assert found.notes.lines()[0].startswith("note: skipped 1 mask of the input images, such as ")


def test_masks_of_two_programs_are_both_listed(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.tif", "a_mask.tif", "a_cp_masks.tif")
    assert pairs(folder, folder)[1] == {"a.tif": ["a_cp_masks.tif", "a_mask.tif"]}


def test_pickles_of_cellpose_are_no_masks_and_are_reported_once(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.tif", "b.tif", "b_cp_masks.tif", "c.tif")
    for name in "ab":
        np.save(folder / f"{name}_seg.npy", np.array({"masks": np.zeros((4, 4))}, dtype=object), allow_pickle=True)
    np.save(folder / "c_seg.npy", np.zeros((4, 4), np.uint8))
    found = pair_masks(find_images(folder).images, folder)
    assert {path: [file.name for file in files] for path, files in found.masks.items()} == {
        "b.tif": ["b_cp_masks.tif"],
        "c.tif": ["c_seg.npy"],
    }
    (note,) = found.notes.lines()
    assert note.startswith("note: 1 file with pickled objects, which are never loaded (a_seg.npy); save")
    assert {each.path for each in found.images} == {"a.tif", "b.tif", "c.tif"}


def test_names_that_differ_in_case_or_spaces_are_paired_with_a_note(tmp_path: Path) -> None:
    folder = make(tmp_path, "images/Cell 1.tif", "images/a.tif", "images/A.tif", "masks/cell 1 .tif", "masks/A.tif")
    found = pair_masks(find_images(folder / "images").images, folder / "masks")
    if len(found.images) == 2:
        pytest.skip("this file system does not distinguish case")
    assert {path: files[0].name for path, files in found.masks.items()} == {
        "Cell 1.tif": "cell 1 .tif",
        "A.tif": "A.tif",
    }
    assert found.notes.lines() == [
        "note: 1 mask matched by a name that differs in upper and lower case or in spaces: cell 1 .tif"
    ]


def test_a_preview_of_an_image_is_left_out_and_other_twins_are_a_conflict(tmp_path: Path) -> None:
    folder = make(
        tmp_path, "images/a.tif", "images/a.png", "images/b.tif", "images/b.tiff", "masks/a.tif", "masks/b.tif"
    )
    found = pair_masks(find_images(folder / "images").images, folder / "masks")
    assert [each.path for each in found.images] == ["a.tif", "b.tif", "b.tiff"]
    assert found.shared == {"b.tif": "b.tiff", "b.tiff": "b.tif"}
    assert found.notes.lines() == ["note: 1 file skipped as a preview of an image with the same name: a.png"]


def test_a_mask_for_each_object_is_left_out_and_refused(tmp_path: Path) -> None:
    names = [
        f"stage1/{image}/{kind}" for image in "xy" for kind in (f"images/{image}.png", "masks/1.png", "masks/2.png")
    ]
    folder = make(tmp_path, *(name.replace(".png", ".tif") for name in names))
    images = find_images(folder).images
    assert sorted(each.path for each in set(images) - find_masks(images)) == [
        "stage1/x/images/x.tif",
        "stage1/y/images/y.tif",
    ]
    with pytest.raises(UserError, match=r"a mask for each object \(2 files in stage1/x/masks\); combine these masks"):
        pair_masks(images, folder)


def test_a_folder_of_outlines_alone_has_no_label_images(tmp_path: Path) -> None:
    folder = make(tmp_path, "images/a.tif")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 0 0 5 0 5 5")
    images = find_images(folder / "images").images
    with pytest.raises(UserError, match=r"holds outlines \(a.txt\) and no label images; save label images"):
        pair_masks(images, folder / "labels")
    assert pair_masks(images, folder / "labels", outlines=True).masks == {"a.tif": (folder / "labels" / "a.txt",)}


def test_a_damaged_array_is_not_pickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 3)))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"{", b"(", 1))
    assert not is_pickled(tmp_path / "a.npy")
