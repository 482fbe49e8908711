from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image
from scipy import ndimage
from skimage.measure import regionprops
from transformers import pipeline

from stedfm_hf import StedFmForSemanticSegmentation, StedFmImageProcessor, StedFmModel
from stedfm_hf.cli import main
from stedfm_hf.images import find_images, read_image
from stedfm_hf.inference import load_segmenter, segment
from stedfm_hf.inference.field_task import FieldTask
from stedfm_hf.inference.objects import NEIGHBOURS
from stedfm_hf.inference.overlay import thumbnail
from stedfm_hf.inference.plane_files import Planes
from stedfm_hf.runs import Manifest, UserError
from tests.models import tiny_config

CLASSES = ["background", "rings", "β-fibres, $µ"]
SIZED: dict[str, Any] = {"imagej": True, "resolution": (50, 40), "metadata": {"unit": "um", "axes": "YX"}}


def counts(shape: tuple[int, ...] = (70, 50), seed: int = 0) -> np.ndarray:
    """Blobs: noise that is smooth, so that masks have shapes."""
    noise = np.random.default_rng(seed).random(shape)
    return (ndimage.gaussian_filter(noise, [0] * (len(shape) - 2) + [3, 3]) * 60000).astype(np.uint16)


def save(folder: Path, **changes: Any) -> Path:
    """A model whose maps follow the image: a fresh decoder says nearly the same everywhere."""
    torch.manual_seed(0)
    changes = {"decoder": "linear", "id2label": dict(enumerate(CLASSES)), **changes}
    model = StedFmForSemanticSegmentation(tiny_config(**changes)).eval()
    with torch.no_grad():
        for weights in model.decode_head.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "single")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(
        tmp_path_factory.mktemp("model") / "multilabel", target_type="multi_label", id2label={0: "actin", 1: "tubulin"}
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for index in range(4):
        file = root / ("a" if index % 2 else "b") / f"{index}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(file, counts(seed=index), **SIZED)
    return root


def by_pipeline(folder: Path, image: Any, **kwargs: Any) -> list[dict[str, Any]]:
    return pipeline("stedfm-segmentation", model=str(folder), device="cpu")(image, **kwargs)


def tables(folder: Path) -> tuple[Any, Any]:
    return pd.read_parquet(folder / "fields.parquet"), pd.read_parquet(folder / "objects.parquet")


def test_one_class_a_pixel_as_the_pipeline_has_it(single: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = segment(images, out, model=single, device="cpu").manifest
    fields, objects = tables(out)
    assert fields["path"].tolist() == ["a/1.tif", "a/3.tif", "b/0.tif", "b/2.tif"]
    assert list(fields)[6:11] == [
        *(f"fraction_{name}" for name in CLASSES),
        *(f"objects_{name}" for name in CLASSES[1:]),
    ]
    assert manifest.exit_status == 0 and Manifest.load(out / "manifest.json").settings["tile_overlap"] == 16
    for _, row in fields.iterrows():
        expected = by_pipeline(single, images / row["path"])
        labels = tifffile.imread(out / row["labels_file"])
        assert labels.dtype == np.uint8 and labels.shape == (70, 50)
        maps = tifffile.imread(out / row["probabilities_file"])
        np.testing.assert_allclose(maps, [each["probability"] for each in expected], atol=1e-6)
        for number, each in enumerate(expected):
            assert ((labels == number) != each["mask"]).mean() < 0.001
            assert row[f"fraction_{each['label']}"] == pytest.approx((labels == number).mean())
    assert set(objects["class"]) == set(CLASSES[1:]), "the background is no object, and the others are"
    assert fields[[f"objects_{name}" for name in CLASSES[1:]]].to_numpy().sum() == len(objects) > 8
    assert not list(out.glob("**/*.parts")) and not list(out.glob("**/.*"))


@pytest.mark.figures
def test_classes_that_overlap_have_a_plane_each(several: Path, images: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tile_size": 24, "tile_overlap": 10, "threshold": 0.4}
    segment(images / "a" / "1.tif", tmp_path / "out", model=several, device="cpu", batch_size=3, **settings)
    expected = by_pipeline(several, images / "a" / "1.tif", **settings)
    labels = tifffile.imread(tmp_path / "out" / "1.tif.labels1.tif")
    assert labels.shape == (2, 70, 50) and set(np.unique(labels)) == {0, 1}
    for plane, each in zip(labels, expected, strict=True):
        assert ((plane > 0) != each["mask"]).mean() < 0.001
    assert (labels.sum(axis=0) == 2).any(), "nothing overlaps: the test tests nothing"
    numbers = tifffile.imread(tmp_path / "out" / "1.tif.objects1.tif")
    assert numbers.dtype == np.uint16 and ((numbers > 0) == (labels > 0)).all()
    with Image.open(tmp_path / "out" / "1.tif.overlay1.png") as picture:
        assert min(picture.size) >= 500


def test_objects_are_what_is_seen_in_the_file(several: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(images / "a", out, model=several, device="cpu", min_area_px=4)
    fields, objects = tables(out)
    for _, row in fields.iterrows():
        raw, labels = tifffile.imread(images / "a" / row["path"]), tifffile.imread(out / row["labels_file"])
        for number, name in enumerate(("actin", "tubulin")):
            found = objects[(objects["path"] == row["path"]) & (objects["class"] == name)]
            inside, count = ndimage.label(labels[number], NEIGHBOURS)
            expected = [each for each in regionprops(inside, raw) if each.area >= 4]
            assert len(found) == len(expected) == row[f"objects_{name}"]
            plane = tifffile.imread(out / row["objects_file"])[number]
            for each, (_, one) in zip(expected, found.iterrows(), strict=True):
                assert (plane[tuple(each.coords.T)] == one["number"]).all()
                assert one["area_px"] == each.area and one["area_um2"] == pytest.approx(each.area * 0.025 * 0.02)
                assert (one["centroid_y_px"], one["centroid_x_px"]) == pytest.approx(each.centroid)
                assert tuple(one[["top_px", "left_px", "bottom_px", "right_px"]]) == each.bbox
                assert one["eccentricity"] == pytest.approx(each.eccentricity, abs=1e-5)
                assert one["equivalent_diameter_px"] == pytest.approx(each.equivalent_diameter_area)
                assert one["mean_intensity"] == pytest.approx(each.intensity_mean)
                assert one["max_intensity"] == each.intensity_max
                assert 0 < one["solidity"] <= 1 + 1e-9 and 0.5 < one["mean_probability"] <= 1


def test_the_pixel_size_is_read_back(several: Path, images: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "unsized.npy", counts())
    segment([images / "a" / "1.tif", tmp_path / "unsized.npy"], tmp_path / "out", model=several, device="cpu")
    for kind in ("labels", "objects", "probabilities"):
        file = tmp_path / "out" / f"1.tif.{kind}1.tif"
        assert read_image(file).pixel_size_nm == pytest.approx((25, 20), rel=1e-6)
        with tifffile.TiffFile(file) as tif:
            about = tif.imagej_metadata
            assert about is not None and about["unit"] == "um" and about["Labels"] == ["actin", "tubulin"]
            assert json.loads(about["Info"])["path"] == "1.tif"
        assert read_image(tmp_path / "out" / f"unsized.npy.{kind}1.tif").pixel_size_nm is None
    _, objects = tables(tmp_path / "out")
    unsized = objects[objects["path"] == "unsized.npy"]
    assert unsized["area_um2"].isna().all() and unsized["pixel_size_nm"].isna().all() and len(unsized)


@pytest.mark.parametrize(("name", "suffix"), [("ome-tiff", ".ome.tif"), ("ome-zarr", ".ome.zarr")])
def test_results_as_ome_files_hold_the_same(
    several: Path, images: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    if name == "ome-zarr":
        pytest.importorskip("zarr")
    np.save(tmp_path / "unsized.npy", counts())
    inputs = [images / "a" / "1.tif", tmp_path / "unsized.npy"]
    segment(inputs, tmp_path / "tiff", model=several, device="cpu")
    segment(inputs, tmp_path / "ome", model=several, device="cpu", format=name)
    for path in ("1.tif", "unsized.npy"):
        for kind in ("labels", "objects", "probabilities"):
            expected = read_image(tmp_path / "tiff" / f"{path}.{kind}1.tif")
            image = read_image(tmp_path / "ome" / f"{path}.{kind}1{suffix}")
            np.testing.assert_array_equal(image.array, expected.array)
            assert image.channel_names == ("actin", "tubulin") and "notes" not in image.metadata
            assert image.pixel_size_nm == (None if path == "unsized.npy" else pytest.approx((25, 20), rel=1e-6))
    fields, objects = tables(tmp_path / "ome")
    assert fields["labels_file"][0] == f"1.tif.labels1{suffix}" and len(objects) == len(tables(tmp_path / "tiff")[1])
    assert not list((tmp_path / "ome").glob(".*"))  # nothing temporary
    shutil.copy(images / "b" / "2.tif", images / "a" / "1.tif")
    os.utime(images / "a" / "1.tif", (10**9, 10**9))
    segment(inputs, tmp_path / "ome", model=several, device="cpu", format=name)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "ome" / f"1.tif.labels1{suffix}").rename(tmp_path / "mixed" / f"1.tif.labels1{suffix}")
    shutil.copy(images / "a" / "1.tif", tmp_path / "mixed" / "1.tif")
    assert [image.path for image in find_images(tmp_path / "mixed").images] == ["1.tif"]  # results are left out


def test_a_model_with_a_pixel_size_of_its_own(several: Path, images: Path, tmp_path: Path) -> None:
    StedFmForSemanticSegmentation.from_pretrained(several).save_pretrained(tmp_path / "finer")
    StedFmImageProcessor(patch_size=8, target_pixel_size_nm=12.5).save_pretrained(tmp_path / "finer")
    np.save(tmp_path / "unsized.npy", counts())
    inputs = [images / "a" / "1.tif", tmp_path / "unsized.npy"]
    manifest = segment(inputs, tmp_path / "out", model=tmp_path / "finer", device="cpu").manifest
    assert "pixel size" in manifest.failures()["unsized.npy"]
    maps = tifffile.imread(tmp_path / "out" / "1.tif.probabilities1.tif")
    expected = np.stack([each["probability"] for each in by_pipeline(tmp_path / "finer", images / "a" / "1.tif")])
    assert maps.shape == (2, 70, 50) and expected.shape == (2, 140, 80)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), expected.mean(axis=(1, 2)), atol=0.02)


def test_pixels_that_are_no_numbers(several: Path, tmp_path: Path) -> None:
    image = counts().astype(np.float32)
    image[20:30, 10:40] = np.nan
    image[40, 5] = np.inf
    tifffile.imwrite(tmp_path / "holes.tif", image)
    manifest = segment(tmp_path / "holes.tif", tmp_path / "out", model=several, device="cpu").manifest
    assert manifest.exit_status == 0
    maps = tifffile.imread(tmp_path / "out" / "holes.tif.probabilities1.tif")
    expected = [each["probability"] for each in by_pipeline(several, tmp_path / "holes.tif")]
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    assert np.isfinite(maps).all()
    _, objects = tables(tmp_path / "out")
    known = objects["mean_intensity"].dropna()
    assert len(known) and np.isfinite(known).all() and (objects["max_intensity"].dropna() < 60001).all()


def test_8_bit_and_nothing_but_labels(several: Path, images: Path, tmp_path: Path) -> None:
    base = ["segment", str(images / "a" / "1.tif"), "--model", str(several), "--device", "cpu", "--output"]
    assert main([*base, str(tmp_path / "one"), "--probabilities", "uint8"]) == 0
    assert main([*base, str(tmp_path / "two")]) == 0
    one, two = (tifffile.imread(tmp_path / name / "1.tif.probabilities1.tif") for name in ("one", "two"))
    assert one.dtype == np.uint8 and two.dtype == np.float32
    np.testing.assert_allclose(one / 255, two, atol=0.5 / 255 + 1e-6)
    assert main([*base, str(tmp_path / "three"), "--probabilities", "none", "--no-overlay"]) == 0
    written = sorted(file.name for file in (tmp_path / "three").iterdir())
    assert written == ["1.tif.labels1.tif", "1.tif.objects1.tif", "fields.parquet", "manifest.json", "objects.parquet"]
    fields, _ = tables(tmp_path / "three")
    assert fields[["probabilities_file", "overlay_file"]].isna().all(axis=None)


def test_the_last_line_counts_the_objects_of_every_class(
    several: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", str(images / "a"), "--model", str(several), "--device", "cpu", "--output"]
    assert main([*words, str(tmp_path / "out")]) == 0
    _, objects = tables(tmp_path / "out")
    actin, tubulin = ((objects["class"] == name).sum() for name in ("actin", "tubulin"))
    assert actin and tubulin
    answer = capsys.readouterr()
    assert f"{actin + tubulin} objects (actin {actin}, tubulin {tubulin}) in " in answer.out
    assert "no object" not in answer.err and "no pixel" not in answer.err
    assert main([*words, str(tmp_path / "none"), "--min-area-px", "9999"]) == 0
    answer = capsys.readouterr()
    assert "0 objects (actin 0, tubulin 0)" in answer.out and "no object has 9999 pixels or more" in answer.err
    assert main([*words, str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects_of"] == {"actin": actin, "tubulin": tubulin}


def test_maps_among_the_images_are_not_segmented_by_the_next_run(several: Path, images: Path, tmp_path: Path) -> None:
    first = segment(images / "a" / "1.tif", images / "a" / "segmented", model=several, device="cpu").manifest
    again = segment(images, tmp_path / "out", model=several, device="cpu").manifest
    assert first.items and all("segmented" not in path for path in again.items)


def test_a_stack_lists_its_planes_or_reads_them_one_by_one(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", counts((3, 40, 44)), imagej=True, metadata={"axes": "ZYX"})
    words = ["segment", str(tmp_path / "stack.tif"), "--model", str(several), "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "none")]) == 1
    assert "3 series" in (error := capsys.readouterr().err) and "image[z=2]" in error and "--series all reads" in error
    assert main([*words, "--output", str(tmp_path / "each"), "--series", "all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fields"] == 3
    assert main([*words, "--output", str(tmp_path / "one"), "--series", "image[z=1]"]) == 0
    each, one = tables(tmp_path / "each")[0], tables(tmp_path / "one")[0]
    assert each["series"].tolist() == [f"image[z={z}]" for z in range(3)] and one["series"].tolist() == ["image[z=1]"]
    first = tifffile.imread(tmp_path / "one" / one.loc[0, "labels_file"])
    assert (first == tifffile.imread(tmp_path / "each" / each.loc[1, "labels_file"])).all()


def test_a_model_of_several_channels_and_channels_of_one_model(several: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", counts((2, 40, 44)))
    segment(tmp_path / "two.npy", tmp_path / "each", model=several, device="cpu")
    segment(tmp_path / "two.npy", tmp_path / "second", model=several, device="cpu", channel=1)
    names = sorted(file.name for file in (tmp_path / "each").glob("*.tif"))
    assert names == [f"two.npy.{k}{n}.tif" for k in ("labels", "objects", "probabilities") for n in (1, 2)]
    both = tifffile.imread(tmp_path / "each" / "two.npy.labels2.tif")
    assert (both == tifffile.imread(tmp_path / "second" / "two.npy.labels1.tif")).all()
    wide = save(tmp_path / "wide", num_channels=2, target_type="multi_label", id2label={0: "actin", 1: "tubulin"})
    segment(tmp_path / "two.npy", tmp_path / "wide-out", model=wide, device="cpu")
    fields, objects = tables(tmp_path / "wide-out")
    assert fields["channel"].tolist() == ["0+1"]
    assert {f"{kind}_intensity_{channel}" for kind in ("mean", "max") for channel in (0, 1)} <= set(objects)


def test_a_bad_file_costs_only_itself(several: Path, images: Path, tmp_path: Path, capsys: Any) -> None:
    (images / "a" / "3.tif").write_bytes(b"II*\0nothing")
    words = ["segment", str(images), "--model", str(several), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "error: a/3.tif: " in printed.err and "in 3 fields from 3 files, 1 failed" in printed.out
    tifffile.imwrite(images / "a" / "3.tif", counts(seed=3), **SIZED)
    assert main(words) == 0
    assert "in 4 fields from 4 files" in capsys.readouterr().out
    assert tables(tmp_path / "out")[0]["path"].tolist() == ["a/1.tif", "b/0.tif", "b/2.tif", "a/3.tif"]


def test_maps_that_are_no_numbers_are_not_written(several: Path, images: Path, tmp_path: Path) -> None:
    broken = StedFmForSemanticSegmentation.from_pretrained(several)
    with torch.no_grad():
        next(broken.decode_head.parameters()).fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    manifest = segment(images, tmp_path / "out", model=tmp_path / "broken", device="cpu").manifest
    assert len(manifest.failures()) == 4 and "not finite" in manifest.failures()["a/1.tif"]
    assert not list((tmp_path / "out").rglob("*.tif")) and tables(tmp_path / "out")[0].empty


@pytest.mark.parametrize("at", [0, 5])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    at: int, several: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(images / "b" / "stack.tif", counts((3, 40, 44)), imagej=True, metadata={"axes": "ZYX"})
    options: dict[str, Any] = {"model": several, "device": "cpu", "series": "all", "overlay": False}
    segment(images, tmp_path / "whole", **options)
    work, left, done = FieldTask.__call__, itertools.count(at, -1), []

    def stop(self: FieldTask, field: Any, path: str, number: int) -> Any:
        if next(left) == 0:
            raise KeyboardInterrupt
        done.append((path, number))
        return work(self, field, path, number)

    monkeypatch.setattr(FieldTask, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        segment(images, tmp_path / "stopped", **options)
    assert not (tmp_path / "stopped" / "fields.parquet").exists()
    segment(images, tmp_path / "stopped", **options)
    assert len(done) == len(set(done)) == 7, "a field that was done is done again"
    files = sorted(file.relative_to(tmp_path / "whole") for file in (tmp_path / "whole").rglob("*.*"))
    assert files == sorted(file.relative_to(tmp_path / "stopped") for file in (tmp_path / "stopped").rglob("*.*"))
    for file in files:
        if file.name != "manifest.json":
            assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    segment(images, tmp_path / "stopped", **options)
    assert len(done) == 7
    with pytest.raises(UserError, match=r"threshold: 0\.5 before, 0\.6 now"):
        segment(images, tmp_path / "stopped", threshold=0.6, **options)
    segment(images, tmp_path / "stopped", threshold=0.6, overwrite=True, **options)
    assert len(done) == 14


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_killed_run_left_half_written_goes(
    overwrite: bool, several: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that cannot be caught leaves the map it was at, under the name it had until it was whole."""
    options: dict[str, Any] = {"model": several, "device": "cpu", "overlay": False}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        patch.setattr(Planes, "write", lambda self, top, band: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            segment(images, tmp_path / "out", **options)
    left = sorted((tmp_path / "out").rglob(".*"))
    assert left and all(file.name.endswith(".tmp.tif") for file in left)
    (tmp_path / "out" / "notes.tmp.txt").touch()
    segment(images, tmp_path / "out", overwrite=overwrite, **options)
    assert not list((tmp_path / "out").rglob(".*")) and (tmp_path / "out" / "notes.tmp.txt").exists()


def test_a_stack_with_a_damaged_plane_has_no_rows_until_it_is_mended(
    several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "both.npz", a=counts(), b=counts(seed=1))
    work, calls = FieldTask.__call__, []

    def fail(self: FieldTask, field: Any, path: str, number: int) -> Any:
        calls.append(number)
        if calls == [1, 2]:
            raise ValueError("damaged")
        return work(self, field, path, number)

    monkeypatch.setattr(FieldTask, "__call__", fail)
    options: dict[str, Any] = {"model": several, "device": "cpu", "series": "all"}
    assert segment(tmp_path / "both.npz", tmp_path / "out", **options).exit_status == 1
    assert tables(tmp_path / "out")[0].empty
    assert segment(tmp_path / "both.npz", tmp_path / "out", **options).exit_status == 0
    assert calls == [1, 2, 2] and len(tables(tmp_path / "out")[0]) == 2


@pytest.mark.figures
def test_a_picture_of_a_large_field_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: Path) -> None:
    monkeypatch.setattr("stedfm_hf.inference.overlay.MOST_PIXELS", 40)
    monkeypatch.setattr("stedfm_hf.inference.overlay.FEWEST_PIXELS", 40)
    np.save(tmp_path / "f.npy", counts((150, 90)))
    segment(tmp_path / "f.npy", tmp_path / "out", model=several, device="cpu")
    with Image.open(tmp_path / "out" / "f.npy.overlay1.png") as picture:
        assert picture.width == 23 and 38 <= picture.height <= 38 + 2 * 24
    field = np.random.default_rng(0).random((700, 9))
    small = thumbnail(lambda top, bottom: field[top:bottom], (700, 9), 4)
    assert small.shape == (175, 3) and small[100, 2] == pytest.approx(field[400:404, 8:].mean())


@pytest.mark.parametrize("scaling", [{}, {"normalization": "none"}, {"intensity_range": (0.0, 9.0)}])
def test_a_field_without_signal_is_done_and_named(
    scaling: dict[str, Any], single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holes = np.full((8, 8), np.nan)
    holes[2:4, 3] = 5
    fields: dict[str, np.ndarray] = {
        "flat": np.full((40, 40), 7, np.uint16),
        "dot": np.ones((1, 1), np.float32),
        "dark": np.full((8, 8), np.nan),
        "holes": holes,
        "late": np.pad(np.ones((1, 1)), ((7, 0), (7, 0))),
    }
    images = tmp_path / "images"
    images.mkdir()
    for name, field in fields.items():
        np.save(images / f"{name}.npy", field)
    np.savez(images / "many.npz", a=fields["late"], b=fields["dark"], c=fields["dark"], d=fields["flat"])
    manifest = segment(images, tmp_path / "out", model=single, device="cpu", series="all", **scaling).manifest
    equal, dark = "no signal (all pixels are equal)", "no signal (no pixel is finite)"
    many = "4 fields, no signal in fields 2, 3 (no pixel is finite), no signal in field 4 (all pixels are equal)"
    notes = {item.partition(".")[0]: status.reason for item, status in manifest.items.items()}
    assert notes == {"flat": equal, "dot": equal, "holes": equal, "dark": dark, "late": None, "many": many}
    assert manifest.exit_status == 0
    printed = capsys.readouterr().err
    assert f"stedfm: flat.npy: {equal}\n" in printed and "many.npz: no signal in field 4 (all" in printed
    assert "late" not in printed


def test_regression_gives_values(images: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "values", target_type="regression", id2label={0: "height"})
    segment(images / "a" / "1.tif", tmp_path / "out", model=model, threshold=2, device="cpu")
    expected = by_pipeline(model, images / "a" / "1.tif")[0]["probability"]
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out" / "1.tif.probabilities1.tif"), expected, atol=1e-5)
    with pytest.raises(UserError, match="8 bit cannot hold"):
        segment(images, tmp_path / "two", model=model, probabilities="uint8", device="cpu")


def test_a_gpu_without_memory_is_reported(
    single: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FieldTask, field: Any, path: str, number: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(FieldTask, "__call__", full)
    with pytest.raises(UserError, match="not have enough memory for 64 tiles of 32 pixels; lower --batch-size"):
        segment(images, tmp_path / "out", model=single, device="cpu", batch_size=64)


@pytest.mark.parametrize("tile_size", [8, 16])
def test_tiles_of_few_patches(tile_size: int, single: Path, images: Path, tmp_path: Path) -> None:
    manifest = segment(
        images / "a" / "1.tif", tmp_path / "out", model=single, device="cpu", tile_size=tile_size
    ).manifest
    assert manifest.exit_status == 0 and manifest.settings["tile_overlap"] == tile_size // 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model": "demo"}, "demo: has no decoder for masks"),
        ({"model": "./no-such-folder"}, "no such folder"),
        ({"inputs": "missing.tif"}, "missing.tif"),
        ({"tile_size": 12}, "multiple of 8"),
        ({"tile_overlap": 32}, "tile overlap 32 is out of range; choose 0 to 31"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"min_area_px": 0}, "min_area_px is 0"),
        ({"probabilities": "int64"}, "'int64' is unknown"),
        ({"threshold": 0.5}, "most probable class"),
        ({"normalization": "fixed"}, "needs an intensity range"),
        ({"normalization": "none", "intensity_range": (0, 400)}, "'none' has no intensity range"),
        ({"output": "IMAGES"}, "contains input images"),
        ({"output": __file__}, "is a file"),
    ],
)
def test_mistakes_are_named(single: Path, images: Path, kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    kwargs = {"inputs": images, "output": tmp_path / "out", "model": single, "device": "cpu", **kwargs}
    kwargs["output"] = str(kwargs["output"]).replace("IMAGES", str(images))
    with pytest.raises(UserError, match=message):
        segment(kwargs.pop("inputs"), kwargs.pop("output"), **kwargs)


def test_a_threshold_out_of_range_and_results_without_a_manifest(several: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="threshold 1 is out of range"):
        segment(images, tmp_path / "out", model=several, threshold=1, device="cpu")
    segment(images, tmp_path / "out", model=several, device="cpu", overlay=False, probabilities=None)
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(UserError, match="holds other files"):
        segment(images, tmp_path / "out", model=several, device="cpu")


def test_a_model_without_a_decoder_is_refused(tmp_path: Path) -> None:
    StedFmModel(tiny_config()).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="it is a StedFmModel; train one: stedfm finetune segmentation"):
        load_segmenter(tmp_path / "other", device="cpu")
    twice = save(tmp_path / "twice", id2label={0: "a", 1: "a"})
    with pytest.raises(UserError, match="more than one of the classes is named 'a'"):
        _ = load_segmenter(twice, device="cpu").classes
