"""factin, footprocess, lioness and mitochondria: from fabricated files in the authors' layout to targets."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from datasets import load_dataset

from stedfm_hf.data.official import mitochondria
from stedfm_hf.data.official.import_set import import_set
from stedfm_hf.data.official.lioness import boundaries
from stedfm_hf.labels.annotated import read_annotated
from stedfm_hf.runs import UserError
from tests.data.official.fabricated import PROTOCOLS, by_source, minmax, random_image, rows_of, unit

h5py = pytest.importorskip("h5py")
SPLITS = ("training", "validation", "testing")


def planes_of(row: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(row["mask"], row["mask_dtype"]).reshape(-1, row["height"], row["width"])


def region_of(row: dict[str, Any]) -> np.ndarray | None:
    return None if row["region"] is None else np.frombuffer(row["region"], np.uint8).reshape(row["pixels"].shape) > 0


# ------------------------------------------------------------------------------------- factin


def write_factin(folder: Path) -> dict[str, np.ndarray]:
    """Write two images of 300 x 224 to each file, padded to 320 x 320; the second has few annotated pixels."""
    folder.mkdir(parents=True)
    kept = {}
    for number, split in enumerate(SPLITS):
        data, label = np.zeros((2, 320, 320), np.float32), np.zeros((2, 3, 320, 320), np.uint8)
        data[:, :300, :224] = random_image(number, 2, 300, 224, dtype="float32")
        label[0, 0, :150, :100] = 255  # rings
        label[0, 1, 100:200, 50:150] = 255  # fibres, over some of the rings
        label[0, 2, :, :120] = 255  # the dendrite
        label[1, 0, :20, :20] = 255
        with h5py.File(folder / f"{split}_small-dataset_20240418.hdf5", "w") as file:
            file["image/data"], file["image/label"] = data, label
            file["image/label"].attrs["shapes"] = [[300, 224]] * 2
        kept[split] = data[0, :300, :224]
    return kept


@pytest.mark.parametrize("legacy", [False, True])
def test_factin_has_overlapping_classes_and_the_dendrite_as_region(tmp_path: Path, legacy: bool) -> None:
    images = write_factin(tmp_path / "factin")
    with zipfile.ZipFile(tmp_path / "factin-segmentation-data.zip", "w") as archive:
        for path in (tmp_path / "factin").iterdir():
            archive.write(path, f"factin/{path.name}")
    summary = import_set(
        "factin", tmp_path / "factin-segmentation-data.zip", tmp_path / "repo", protocol=PROTOCOLS[legacy]
    )
    assert summary.crops == {"train": 1, "validation": 1, "test": 1}
    skipped = [item for item, status in summary.manifest.items.items() if status.state == "skipped"]
    assert len(skipped) == 3 and all(item.endswith("image/1") for item in skipped)
    splits = read_annotated(summary.output)
    for name, split in zip(("train", "validation", "test"), SPLITS, strict=True):
        (data,) = (splits[name],)
        assert (data.target_type, data.classes) == ("multi_label", ("rings", "fibres"))
        np.testing.assert_array_equal(data.image(0)[0], images[split][:224])
        target, region = data.annotation(0)
        assert target.sum(axis=(1, 2)).tolist() == [15_000, 10_000] and target.all(axis=0).sum() == 50 * 50
        if legacy and name != "test":
            assert region is None
        else:
            assert region is not None
            np.testing.assert_array_equal(region, np.arange(224) < np.full((224, 1), 120))


def test_factin_excludes_pixels_beyond_the_border_from_the_region(tmp_path: Path) -> None:
    label = np.zeros((1, 2, 200, 300), np.float32)
    label[0, 1, :, 150:] = 1
    with h5py.File(tmp_path / "testing_x.hdf5", "w") as file:
        file["a/data"], file["a/label"] = random_image(1, 1, 200, 300), label  # counts, no dendrite, no shapes
    summary = import_set("factin", tmp_path / "testing_x.hdf5", tmp_path / "repo")
    rows = sorted(rows_of(summary.output), key=lambda row: (row["y"], row["x"]))
    assert [(row["y"], row["x"]) for row in rows] == [(0, 0), (0, 168)]
    assert {(row["intensity_low"], row["intensity_high"]) for row in rows} == {
        (rows[0]["intensity_low"], rows[0]["intensity_high"])
    }
    region = region_of(rows[1])
    assert region is not None and region[:200, :132].all() and region.sum() == 200 * 132
    (legacy, _) = rows_of(
        import_set("factin", tmp_path / "testing_x.hdf5", tmp_path / "all", protocol="reference").output
    )
    assert legacy["region"] is None


def test_factin_reports_labels_that_do_not_fit(tmp_path: Path) -> None:
    write_factin(tmp_path / "set")
    with h5py.File(tmp_path / "set" / "training_small-dataset_20240418.hdf5", "a") as file:
        del file["image/label"]
        file["image/label"] = np.zeros((2, 3, 10, 10))
    (tmp_path / "set" / "other.hdf5").write_bytes(b"x")
    summary = import_set("factin", tmp_path / "set", tmp_path / "repo")
    (reason,) = summary.manifest.failures().values()
    assert "image/label has the shape (2, 3, 10, 10)" in reason and set(summary.crops) == {"validation", "test"}
    with h5py.File(tmp_path / "training.h5", "w") as file:
        file["a/data"] = np.zeros((1, 8, 8))
    with pytest.raises(UserError, match=r"no annotated image .*contains no 'label'"):
        import_set("factin", tmp_path / "training.h5", tmp_path / "none")


# ------------------------------------------------------------------------------------- footprocess


def write_foot(folder: Path, name: str, values: tuple[int, ...], *, side: int = 230, nm: float = 22.724609375) -> None:
    pixels = random_image(int(name[-1]), side, side)
    mask = np.zeros((side, side), np.uint8)
    for number, value in enumerate(values):
        mask[20 + 40 * number : 50 + 40 * number, 10:60] = value
    for place, array in ((f"images/{name}.tif", pixels), (f"labels/{name}_bin.tif", mask)):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        resolution = (1000 / nm, 1000 / nm)
        tifffile.imwrite(folder / place, array, imagej=True, resolution=resolution, metadata={"unit": "um"})


@pytest.mark.parametrize("legacy", [False, True])
def test_footprocess_determines_class_values_from_all_masks(tmp_path: Path, card: None, legacy: bool) -> None:
    root = tmp_path / "footprocess"
    write_foot(root, "a1", (128, 255))
    write_foot(root, "b2", (255,))  # slit diaphragms alone
    write_foot(root, "c3", (64, 128, 255), side=120)
    write_foot(root / "test", "d4", (128, 255), side=250, nm=2 * 22.724609375)
    (root / "training.txt").write_text("/data/footprocess/images/a1.tif\nb2.tif\n", encoding="utf-8")
    (root / "validation.txt").write_text("images/c3.tif\n", encoding="utf-8")
    summary = import_set("footprocess", root, tmp_path / f"repo-{legacy}", protocol=PROTOCOLS[legacy])
    assert summary.crops == {"train": 2, "validation": 1, "test": 2} and not summary.manifest.failures()
    rows = {source.rpartition("/")[2]: each for source, each in by_source(summary).items()}
    masks = {name: np.frombuffer(each[0]["mask"], np.uint8) for name, each in rows.items()}
    assert np.bincount(masks["a1.tif"]).tolist() == [224**2 - 3000, 1500, 1500]
    assert set(masks["b2.tif"]) == ({0, 1} if legacy else {0, 2})
    np.testing.assert_allclose(unit(rows["a1.tif"][0]), minmax(random_image(1, 230, 230)[:224, :224]), atol=1e-6)
    # Smaller images are mirrored, larger pixels made smaller.
    mirrored = masks["c3.tif"].reshape(224, 224)
    np.testing.assert_array_equal(mirrored[120:], mirrored[119:15:-1])
    assert {row["pixel_size_nm"][0] for row in rows["d4.tif"]} == {22.724609375}
    # 500 pixels then; the crops on the right show nothing annotated, and none reaches the border.
    assert sorted((row["y"], row["x"]) for row in rows["d4.tif"]) == [(0, 0), (168, 0)]
    data = read_annotated(summary.output)["train"]
    assert (data.target_type, data.classes) == ("single_label", ("background", "FP", "SD"))


def test_footprocess_without_lists_masks_or_pixel_sizes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(5):
        write_foot(root, f"a{number}", (1, 2))
    write_foot(root, "b5", (1, 7))
    (root / "labels" / "a4_bin.tif").unlink()
    tifffile.imwrite(root / "images" / "a3.tif", random_image(3, 230, 230))
    summary = import_set("footprocess", root, tmp_path / "repo")
    failures = summary.manifest.failures()
    assert "has no pixel size" in failures["images/a3.tif"]
    assert "the classes cannot be determined" in failures["images/b5.tif"]
    assert "has no mask" in (summary.manifest.items["images/a4.tif"].reason or "")
    assert sum(summary.crops.values()) == 3


# ------------------------------------------------------------------------------------- lioness


def write_lioness(root: Path) -> None:
    for number, split in enumerate(("train", "valid")):
        (root / split).mkdir(parents=True)
        with h5py.File(root / split / f"a_img_{number}.h5", "w") as file:
            file["main"] = random_image(number, 2, 230, 300, dtype="uint8").astype(np.uint8)
        cells = np.zeros((2, 230, 300), np.uint16)
        cells[:, 10:100, 10:60], cells[:, 10:100, 60:90] = 300, 301  # two that touch
        tifffile.imwrite(root / split / f"a_labels_{number}.tif", cells)
    (root / "test").mkdir()
    volume = np.zeros((3, 2, 224, 224), np.uint16)
    volume[:, 1] = random_image(9, 3, 224, 224)
    volume[:, 0, 50:100, 50:100] = 500
    tifffile.imwrite(root / "test" / "b.tif", volume, imagej=True, metadata={"axes": "ZCYX"})


@pytest.mark.parametrize("legacy", [False, True])
def test_lioness_has_cells_and_boundaries_of_every_slice(tmp_path: Path, legacy: bool) -> None:
    write_lioness(tmp_path / "lioness")
    summary = import_set("lioness", tmp_path / "lioness", tmp_path / "repo", protocol=PROTOCOLS[legacy])
    assert summary.crops == {"train": 8, "validation": 8} | ({} if legacy else {"test": 3})
    assert summary.sources["train"] == 1
    splits = read_annotated(summary.output)
    data = splits["train"]
    assert (data.target_type, data.classes) == ("multi_label", ("cell", "boundary"))
    (row,) = [row for row in rows_of(summary.output) if row["split"] == "train" and (row["y"], row["x"]) == (0, 0)][:1]
    cell, boundary = planes_of(row)
    assert cell.sum() == 90 * 80 and boundary[50, 58:61].tolist() == [1, 1, 1] and not boundary[50, 63:85].any()
    assert boundary[50, 8:12].tolist() == [1, 1, 1, 0] and row["region"] is None
    whole = random_image(0, 2, 230, 300, dtype="uint8").astype(np.uint8)[:, :224, :224]
    assert any(np.allclose(unit(row), minmax(each), atol=1e-6) for each in whole)
    if not legacy:
        assert any("threshold" in note for note in summary.notes)
        assert [data.target(0)[0].sum() for data in (splits["test"],)] == [2500]
        assert any(np.array_equal(splits["test"].stored(0).array[0], each) for each in random_image(9, 3, 224, 224))
    else:
        assert "the reference fails on" in (summary.manifest.items["test/b.tif"].reason or "")


def test_lioness_reports_volumes_that_do_not_match_their_labels(tmp_path: Path) -> None:
    write_lioness(tmp_path / "set")
    tifffile.imwrite(tmp_path / "set" / "train" / "a_labels_0.tif", np.zeros((5, 230, 300), np.uint8))
    (tmp_path / "set" / "valid" / "a_labels_1.tif").unlink()
    summary = import_set("lioness", tmp_path / "set", tmp_path / "repo")
    assert "the volume has 2 slices" in summary.manifest.failures()["train/a_img_0.h5"]
    assert "has no TIFF stack" in (summary.manifest.items["valid/a_img_1.h5"].reason or "")
    assert summary.crops == {"test": 3}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no annotated image"):
        import_set("lioness", tmp_path / "empty", tmp_path / "none")


def test_boundaries_are_where_cell_numbers_change() -> None:
    assert not boundaries(np.full((5, 5), 7)).any()
    cells = np.zeros((7, 7), int)
    cells[3, 3] = 1
    assert boundaries(cells).sum() == 10 and boundaries(cells)[3, 3]  # above, left and itself, and their neighbours


# ------------------------------------------------------------------------------------- mitochondria


@pytest.mark.parametrize("legacy", [False, True])
def test_mitochondria_shares_no_frame_between_validation_and_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: None, legacy: bool
) -> None:
    monkeypatch.setattr(mitochondria, "RANGES", {"train": (0, 6), "validation": (6, 9), "test": (9, 12)})
    monkeypatch.setattr(mitochondria, "LEGACY_TEST", (6, 12))
    root = tmp_path / "mitochondria" / "training_data"
    root.mkdir(parents=True)
    frames = random_image(1, 14, 16, 24).astype(np.uint8)
    divisions = np.zeros((14, 16, 24), np.float32)
    divisions[:, 3:5, 4:6] = 0.3
    for name, array in (("Mito", frames), ("Proc", divisions)):
        with h5py.File(root / f"{name}.h5", "w") as file:
            file[name] = array
    summary = import_set("mitochondria", root.parent, tmp_path / f"repo-{legacy}", protocol=PROTOCOLS[legacy])
    assert summary.crops == {"train": 6, "validation": 3, "test": 6 if legacy else 3}
    assert any("2 frames after the last" in note for note in summary.notes)
    splits = read_annotated(summary.output)
    data = splits["train"]
    assert (data.target_type, data.classes) == ("single_label", ("background", "fission"))
    found = {data.image(n).tobytes() for n in range(6)}
    assert found == {(frame / np.float32(255))[None].astype(np.float32).tobytes() for frame in frames[:6]}
    assert data.target(0).sum() == 4 and data.target(0).shape == (16, 24)
    shared = {bytes(splits["test"].stored(n).array) for n in range(len(splits["test"]))} & {
        bytes(splits["validation"].stored(n).array) for n in range(3)
    }
    assert len(shared) == (3 if legacy else 0)
    assert load_dataset(str(summary.output), "preview", split="test")[0]["mask"].size == (24, 16)


def test_mitochondria_needs_both_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "Mito.h5", "w") as file:
        file["Mito"] = np.zeros((2, 4, 4))
    with pytest.raises(UserError, match="contains no Proc.h5"):
        import_set("mitochondria", tmp_path, tmp_path / "repo")
    with h5py.File(tmp_path / "Proc.h5", "w") as file:
        file["Proc"] = np.zeros((3, 4, 4))
    with pytest.raises(UserError, match="not of the same frames"):
        import_set("mitochondria", tmp_path, tmp_path / "repo")
