"""Simulated fields are deterministic and physical, and their structures differ only in shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stedfm_hf.data import STRUCTURES, SimulatedField, SimulationSettings, simulate_field, simulate_image
from stedfm_hf.data.simulation.physics import class_id
from stedfm_hf.data.simulation.structures import RING_PERIOD_NM
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
def test_any_seed_index_and_size_gives_reproducible_counts(
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


def test_an_image_does_not_depend_on_earlier_calls() -> None:
    alone = simulate_image("puncta", seed=3, index=5, settings=SMALL)
    np.random.default_rng(0).normal(size=3)
    simulate_image("rings", seed=3, index=4, settings=SMALL)
    np.testing.assert_array_equal(alone, simulate_image("puncta", seed=3, index=5, settings=SMALL))


def test_photons_and_background_set_the_counts() -> None:
    empty = replace(SMALL, photons=(0.0, 0.0), background=(7.0, 7.0))
    counts = simulate_image("rings", seed=0, index=0, settings=empty).astype(float)
    assert counts.mean() == pytest.approx(7.0, abs=0.2)
    assert counts.var() == pytest.approx(7.0, rel=0.15)
    bright = SimulationSettings(photons=(5_000.0, 5_000.0), background=(0.0, 0.0))
    image = simulate_image("rings", seed=0, index=0, settings=bright)
    assert np.percentile(image, 99.9) == pytest.approx(5e3, rel=0.1)


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


def test_intensity_histograms_do_not_distinguish_structures() -> None:
    """Mean histograms of two structures differ about as much as those of two halves of one structure."""

    def histogram(structure: str, start: int, physics: SimulationSettings) -> np.ndarray:
        images = [simulate_image(structure, seed=0, index=start + k, settings=physics) for k in range(60)]
        return np.mean([np.histogram(image / image.max(), 24, (0, 1))[0] / image.size for image in images], axis=0)

    def distance(physics: SimulationSettings) -> float:
        return float(np.abs(histogram("puncta", 0, physics) - histogram("microtubules", 0, physics)).sum())

    physics = replace(SMALL, height=96, width=96, photons=(40.0, 40.0), background=(1.0, 1.0))
    noise = float(np.abs(histogram("puncta", 0, physics) - histogram("puncta", 60, physics)).sum())
    assert distance(physics) < 2.5 * noise
    assert distance(physics) < 0.5 * distance(replace(physics, match_with=()))


def test_depletion_sharpens_and_no_depletion_gives_the_confocal_partner() -> None:
    clean = SimulationSettings(photons=(2_000.0, 2_000.0), background=(0.0, 0.0), fwhm_nm=(60.0, 60.0))

    def field(depletion: float) -> SimulatedField:
        settings = replace(clean, depletion=depletion)
        return simulate_field("polymer_rings", seed=0, index=0, settings=settings, confocal=True)

    sted, between, confocal = field(1.0), field(0.2), field(0.0)
    assert [each.parameters["fwhm_nm"] for each in (sted, between, confocal)] == [60.0, 120.0, 240.0]

    def fine_detail(counts: np.ndarray) -> float:
        power = np.abs(np.fft.fft2(counts.astype(float))) ** 2
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(224), np.fft.fftfreq(224)))
        return float(power[(radius > 0.1) & (radius < 0.2)].sum() / power[(radius > 0) & (radius < 0.05)].sum())

    assert fine_detail(sted.image) > 3 * fine_detail(between.image) > 9 * fine_detail(confocal.image)
    assert sted.image.mean() < between.image.mean() < confocal.image.mean()
    assert sted.confocal is not None and confocal.confocal is not None
    np.testing.assert_array_equal(sted.confocal, confocal.confocal)
    np.testing.assert_array_equal(sted.mask, confocal.mask)
    # Each emitter gives (240 / 60) squared times the light; the difference is light outside the field.
    assert confocal.expected.mean() / sted.expected.mean() == pytest.approx(16.0, rel=0.15)


def test_the_image_is_the_same_with_and_without_its_partner() -> None:
    with_partner = simulate_field("fibres", seed=0, index=1, settings=SMALL, confocal=True)
    np.testing.assert_array_equal(with_partner.image, simulate_image("fibres", seed=0, index=1, settings=SMALL))
    assert simulate_field("fibres", seed=0, index=1, settings=SMALL).confocal is None


@pytest.mark.parametrize("structure", sorted(STRUCTURES))
def test_masks_contain_most_of_the_light(structure: str) -> None:
    unmatched = SimulationSettings(match_with=(), background=(0.0, 0.0))
    for index in range(3):
        field = simulate_field(structure, seed=0, index=index, settings=unmatched)
        inside = field.masks[structure]
        assert set(np.unique(field.mask)) == {0, class_id(structure)}
        assert 0.03 < inside.mean() < 0.4
        assert field.expected[inside].sum() > 0.7 * field.expected.sum()
        assert field.expected[inside].mean() > 10 * field.expected[~inside].mean()


@given(index=st.integers(0, 2**31), names=st.sets(st.sampled_from(sorted(STRUCTURES)), min_size=2, max_size=4))
@settings(max_examples=8)
def test_structures_of_a_mixed_scene_are_in_separate_regions(index: int, names: set[str]) -> None:
    physics = SimulationSettings(height=160, width=160)
    field = simulate_field(sorted(names), seed=0, index=index, settings=physics)
    assert set(np.unique(field.mask)) == {0, *map(class_id, names)}
    centres = [np.argwhere(mask).mean(axis=0) for mask in field.masks.values()]
    apart = np.linalg.norm(np.subtract(centres[0], centres[1]))
    assert apart > 15
    again = simulate_field(
        sorted(names)[::-1], seed=0, index=index, settings=SimulationSettings(height=160, width=160)
    )
    np.testing.assert_array_equal(field.image, again.image)


def test_no_field_is_nearly_empty() -> None:
    for name in STRUCTURES:
        for index in range(8):
            light = simulate_field(name, seed=5, index=index).expected
            light = light - light.min()
            assert (light > 0.18 * np.percentile(light, 99.9)).mean() > 0.03


def test_class_ids_never_change() -> None:
    """Masks of existing data sets contain them."""
    known = ["rings", "fibres", "microtubules", "puncta", "clusters", "mitochondria", "polymer_rings"]
    assert list(STRUCTURES)[: len(known)] == known


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 3}, "too small"),
        ({"pixel_size_nm": 0.0}, "pixel_size_nm"),
        ({"photons": (5.0, 1.0)}, "photons must be a range"),
        ({"depletion": 1.5}, "depletion must be from 0 to 1"),
        ({"fwhm_nm": (0.0, 50.0)}, "fwhm_nm must be a range from 1 to confocal_fwhm_nm = 240"),
        ({"fwhm_nm": (50.0, 300.0)}, "fwhm_nm must be a range"),
        ({"match_with": ("ring",)}, "unknown structure 'ring'"),
    ],
)
def test_invalid_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SimulationSettings(**change)


def test_an_unknown_structure_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown structure 'rod'; choose from rings, fibres"):
        simulate_image("rod", seed=0, index=0)
    with pytest.raises(UserError, match="give one or more of rings"):
        simulate_field([], seed=0, index=0)
