"""The simulator: deterministic, physical, and with nothing but shape to tell its structures apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from stedfm_hf.data import STRUCTURES, SimulationSettings, simulate_image, write_images
from stedfm_hf.data.structures import RING_PERIOD_NM
from stedfm_hf.runs.errors import UserError

SMALL = SimulationSettings(height=64, width=48)


@given(
    structure=st.sampled_from(sorted(STRUCTURES)),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 2**40),
    height=st.integers(8, 70),
    width=st.integers(8, 70),
)
@settings(max_examples=40, deadline=None)
def test_any_seed_index_and_size_gives_counts_and_the_same_ones_again(
    structure: str, seed: int, index: int, height: int, width: int
) -> None:
    physics = SimulationSettings(height=height, width=width)
    image = simulate_image(structure, seed=seed, index=index, settings=physics)
    assert image.shape == (height, width)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, simulate_image(structure, seed=seed, index=index, settings=physics))


def test_images_differ_between_structures_seeds_and_indices() -> None:
    keys = [("rings", 0, 0), ("rings", 0, 1), ("rings", 1, 0), ("fibres", 0, 0), ("puncta", 0, 0)]
    images = {simulate_image(name, seed=seed, index=index, settings=SMALL).tobytes() for name, seed, index in keys}
    assert len(images) == len(keys)


def test_an_image_does_not_depend_on_what_was_drawn_before() -> None:
    alone = simulate_image("puncta", seed=3, index=5, settings=SMALL)
    np.random.default_rng(0).normal(size=3)
    simulate_image("rings", seed=3, index=4, settings=SMALL)
    np.testing.assert_array_equal(alone, simulate_image("puncta", seed=3, index=5, settings=SMALL))


def test_photons_and_background_set_the_counts() -> None:
    empty = replace(SMALL, photons=(0.0, 0.0), background=(7.0, 7.0))
    counts = simulate_image("rings", seed=0, index=0, settings=empty).astype(float)
    assert counts.mean() == pytest.approx(7.0, abs=0.2)
    assert counts.var() == pytest.approx(7.0, rel=0.15)
    bright = replace(SMALL, photons=(5_000.0, 5_000.0), background=(0.0, 0.0))
    assert np.percentile(simulate_image("rings", seed=0, index=0, settings=bright), 99.9) == pytest.approx(
        5e3, rel=0.1
    )


def test_rings_repeat_every_190_nm_and_fibres_do_not() -> None:
    clean = SimulationSettings(photons=(500.0, 500.0), background=(0.0, 0.0), match_with=())
    period = 224 * clean.pixel_size_nm / RING_PERIOD_NM
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(224) * 224, np.fft.fftfreq(224) * 224))

    def peak(structure: str) -> float:
        images = np.stack([simulate_image(structure, seed=0, index=index, settings=clean) for index in range(12)])
        power = (np.abs(np.fft.fft2(images)) ** 2).sum(axis=0)
        ring = power[np.abs(radius - period) < 1.5].mean()
        return float(ring / power[(np.abs(radius - period) > 4) & (np.abs(radius - period) < 7)].mean())

    assert peak("rings") > 1.5
    assert peak("fibres") < 1.2


def test_an_intensity_histogram_does_not_tell_the_structures_apart() -> None:
    """Mean histograms of two structures differ no more than two halves of one structure do."""

    def histogram(structure: str, start: int, physics: SimulationSettings) -> np.ndarray:
        images = [simulate_image(structure, seed=0, index=start + k, settings=physics) for k in range(60)]
        return np.mean([np.histogram(image / image.max(), 24, (0, 1))[0] / image.size for image in images], axis=0)

    def distance(physics: SimulationSettings) -> float:
        return float(np.abs(histogram("puncta", 0, physics) - histogram("microtubules", 0, physics)).sum())

    physics = replace(SMALL, height=96, width=96, photons=(40.0, 40.0), background=(1.0, 1.0))
    noise = float(np.abs(histogram("puncta", 0, physics) - histogram("puncta", 60, physics)).sum())
    assert distance(physics) < 2.5 * noise
    assert distance(physics) < 0.5 * distance(replace(physics, match_with=()))


def test_files_are_labelled_by_folder_and_carry_the_pixel_size(tmp_path: Path) -> None:
    files = write_images(tmp_path, per_structure=2, seed=1, settings=replace(SMALL, pixel_size_nm=15.0), first_index=4)
    assert [str(file.relative_to(tmp_path).as_posix()) for file in files[:3]] == [
        "rings/rings_00004.tif",
        "rings/rings_00005.tif",
        "fibres/fibres_00004.tif",
    ]
    assert len(files) == 8
    with tifffile.TiffFile(files[0]) as tiff:
        assert tiff.is_imagej
        assert tiff.imagej_metadata is not None
        assert tiff.imagej_metadata["unit"] in ("um", "\\u00B5m", "µm")
        pixels, units = tiff.pages.first.tags["XResolution"].value
        assert 1000.0 * units / pixels == pytest.approx(15.0)
        expected = simulate_image("rings", seed=1, index=4, settings=replace(SMALL, pixel_size_nm=15.0))
        np.testing.assert_array_equal(tiff.asarray(), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 3}, "too small"),
        ({"pixel_size_nm": 0.0}, "pixel_size_nm"),
        ({"photons": (5.0, 1.0)}, "photons must be a range"),
        ({"match_with": ("ring",)}, "unknown structure 'ring'"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SimulationSettings(**change)  # type: ignore[arg-type]


def test_an_unknown_structure_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown structure 'rod'; known are rings, fibres"):
        simulate_image("rod", seed=0, index=0)
    with pytest.raises(UserError, match="unknown structure"):
        write_images("nowhere", per_structure=1, seed=0, structures=("rod",))
    assert not Path("nowhere").exists()
