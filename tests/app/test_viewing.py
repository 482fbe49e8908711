"""Viewing: series and channels, and an 8-bit picture that never changes the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from stedfm_hf.app.viewing import open_image, write_picture, zoom_of
from stedfm_hf.images import ImageReadError
from stedfm_hf.reports.figures import automatic_limits, to_8bit
from stedfm_hf.runs import UserError


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 40_000, (2, 30, 50), dtype=np.uint16)


@pytest.fixture
def file(tmp_path: Path, pixels: np.ndarray) -> Path:
    path = tmp_path / "cell.tif"
    about = {"axes": "CYX", "unit": "um", "Labels": ["actin", "tubulin"]}
    tifffile.imwrite(path, pixels, imagej=True, resolution=(50, 40), metadata=about)
    return path


def test_a_series_and_a_channel_are_opened_at_full_depth(file: Path, pixels: np.ndarray) -> None:
    opened = open_image(file, max_pixels=1e6, channel=1)
    assert opened.plane.dtype == np.uint16 and np.array_equal(opened.plane, pixels[1])
    assert opened.limits == automatic_limits(pixels[1])
    assert opened.describe().startswith("30 × 50, uint16, 25 × 20 nm pixels, intensities ")
    one, both = opened.for_model(1), opened.for_model(2)
    assert np.array_equal(one.array, pixels[1:]) and len(one.channel_names) == 1
    assert np.array_equal(both.array, pixels) and both.source == "cell.tif"


def test_every_series_can_be_chosen(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", confocal=np.zeros((8, 9)), sted=np.ones((3, 10, 11)))
    first = open_image(tmp_path / "two.npz", max_pixels=1e6)
    assert [each.name for each in first.series] == ["confocal", "sted"] and first.plane.shape == (8, 9)
    second = open_image(tmp_path / "two.npz", max_pixels=1e6, series=1, channel=7, known=first.series)
    assert second.plane.shape == (10, 11) and second.channel == 0


def test_large_and_broken_files_are_refused_without_the_path(tmp_path: Path, file: Path) -> None:
    with pytest.raises(UserError, match=r"^cell\.tif: has 30 × 50 pixels, more than the limit of 0\.001 million"):
        open_image(file, max_pixels=1000)
    (tmp_path / "broken.tif").write_bytes(file.read_bytes()[:200])
    with pytest.raises(ImageReadError, match=r"^broken\.tif: "):
        open_image(tmp_path / "broken.tif", max_pixels=1e6)
    (tmp_path / "virus.exe").write_bytes(b"MZ\0\0")
    with pytest.raises(ImageReadError, match=r"^virus\.exe: "):
        open_image(tmp_path / "virus.exe", max_pixels=1e6)


@pytest.mark.figures
@pytest.mark.parametrize("shape", [(520, 600), (64, 128), (1500, 700)])
def test_the_picture_shows_the_pixels_in_8_bit(tmp_path: Path, shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).integers(0, 40_000, shape, dtype=np.uint16)
    before = plane.copy()
    zoom = write_picture(tmp_path / "cell.png", plane, (1000, 30_000), None)
    shown = np.asarray(Image.open(tmp_path / "cell.png").convert("L"))
    height, width = (-(-side // zoom.factor) * zoom.enlarged for side in shape)
    assert shown.shape == (height, width) and max(shown.shape) <= 1024
    if zoom.factor == 1:
        each = zoom.enlarged
        assert np.array_equal(shown[::each, ::each], to_8bit(plane, (1000, 30_000)))
    else:
        mean = plane[: zoom.factor, : zoom.factor].astype(np.float32).mean()
        assert shown[0, 0] == to_8bit(np.array([[mean]]), (1000, 30_000))
    assert np.array_equal(plane, before)


@pytest.mark.figures
def test_the_scale_bar_has_the_length_that_it_states(tmp_path: Path) -> None:
    write_picture(tmp_path / "bar.png", np.zeros((500, 600)), (0, 1), 20.0)
    shown = np.asarray(Image.open(tmp_path / "bar.png").convert("L"))
    row = shown[shown.mean(axis=1).argmax()]
    assert abs(int((row > 128).sum()) - 2000 / 20.0 * 1) <= 1 or abs(int((row > 128).sum()) - 5000 / 20.0) <= 1


def test_a_click_gives_the_pixel(tmp_path: Path) -> None:
    assert zoom_of((64, 128)).pixel_at(9, 5) == (1, 2)  # enlarged 4 times
    assert zoom_of((2000, 1000)).pixel_at(10, 499) == (998, 20)  # averaged over 2 x 2 pixels
    assert zoom_of((2000, 1000)).pixel_at(5000, 5000) == (1999, 999)


def test_pixels_that_are_not_finite_are_black(tmp_path: Path) -> None:
    plane = np.array([[np.nan, np.inf], [1.0, 2.0]])
    assert to_8bit(plane, (1.0, 2.0)).tolist() == [[0, 255], [0, 255]]
    assert automatic_limits(np.full((2, 2), np.nan)) == (0.0, 1.0)
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    assert open_image(tmp_path / "nan.npy", max_pixels=100).range() == (0.0, 1.0)
