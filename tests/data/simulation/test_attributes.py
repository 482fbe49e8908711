"""Attributes of simulated crops are what the pixels show, independent of each other, and stored with each crop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.feature import peak_local_max

from stedfm_hf.data import stream
from stedfm_hf.data.simulation.attribute_set import list_jobs, simulate_attribute_set
from stedfm_hf.data.simulation.attributes import ATTRIBUTES, PHYSICS, RANGES, simulate_attributes
from stedfm_hf.data.simulation.structures import RING_PERIOD_NM
from stedfm_hf.runs import UserError

VALUES = [0.0, 0.25, 0.5, 0.75, 1.0]


def ring_power(image: np.ndarray) -> float:
    """Share of the power above low frequencies that is at the period of the rings."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    at_period = np.abs(frequency - PHYSICS.pixel_size_nm / RING_PERIOD_NM) < 0.015
    return float(power[at_period].sum() / power[frequency > 0.05].sum())


def test_more_visible_rings_have_more_power_at_their_period() -> None:
    means = [
        np.mean(
            [
                ring_power(simulate_attributes("actin", seed=0, index=i, ring_visibility=v, fwhm_nm=50.0).image)
                for i in range(25)
            ]
        )
        for v in VALUES
    ]
    assert means == sorted(means)
    assert means[-1] > 1.25 * means[0]


def test_a_denser_crop_has_more_puncta_at_the_same_positions() -> None:
    counts, true = [], []
    for density in np.linspace(*RANGES["density_per_um2"], 5):
        crop = simulate_attributes("puncta", seed=0, index=1, density_per_um2=float(density), fwhm_nm=50.0)
        smooth = gaussian_filter(crop.image.astype(float), 1.5)
        counts.append(len(peak_local_max(smooth, min_distance=3, threshold_rel=0.05)))
        true.append(crop.attributes["density_per_um2"])
    assert true == sorted(true) and true[-1] > 5 * true[0]
    assert spearmanr(counts, true)[0] > 0.85
    few, many = (
        simulate_attributes("puncta", seed=0, index=1, density_per_um2=density).image for density in (1.2, 3.0)
    )
    y, x = np.unravel_index(few.argmax(), few.shape)
    assert many[y, x] > 0.25 * many.max()


@pytest.mark.parametrize("structure", ATTRIBUTES)
def test_a_wider_psf_removes_high_frequencies(structure: str) -> None:
    def roughness(fwhm: float) -> float:
        images = [simulate_attributes(structure, seed=0, index=i, fwhm_nm=fwhm).image.astype(float) for i in range(10)]
        return float(np.mean([np.diff(gaussian_filter(image, 0.7)).std() / image.std() for image in images]))

    values = [roughness(fwhm) for fwhm in (45.0, 75.0, 110.0)]
    assert values == sorted(values, reverse=True)


def test_attributes_are_reproducible_and_independent_of_each_other() -> None:
    crops = [simulate_attributes("actin", seed=0, index=index) for index in range(200)]
    again = simulate_attributes("actin", seed=0, index=7)
    np.testing.assert_array_equal(crops[7].image, again.image)
    assert again.attributes == crops[7].attributes
    visibility, fwhm, photons = np.array(
        [(c.attributes["ring_visibility"], c.attributes["fwhm_nm"], c.parameters["photons"]) for c in crops]
    ).T
    assert 0.0 <= visibility.min() < 0.1 and 0.9 < visibility.max() <= 1.0
    assert max(abs(np.corrcoef([visibility, fwhm, photons])[np.triu_indices(3, 1)])) < 0.2


def test_given_attributes_keep_everything_else() -> None:
    sampled = simulate_attributes("actin", seed=3, index=2)
    given = simulate_attributes("actin", seed=3, index=2, ring_visibility=0.5)
    assert given.parameters == sampled.parameters
    assert given.attributes["fwhm_nm"] == sampled.attributes["fwhm_nm"]
    same = simulate_attributes("actin", seed=3, index=2, fwhm_nm=sampled.attributes["fwhm_nm"])
    assert np.corrcoef(same.image.ravel(), sampled.image.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("structure", "given", "message"),
    [
        ("rings", {}, "unknown structure 'rings'; choose actin or puncta"),
        ("actin", {"density_per_um2": 3.0}, "actin has no density_per_um2"),
        ("puncta", {"ring_visibility": 0.3}, "puncta has no ring_visibility"),
        ("actin", {"ring_visibility": 1.5}, "from 0 to 1, not 1.5"),
        ("puncta", {"density_per_um2": 0.0}, "above 0, not 0.0"),
        ("puncta", {"fwhm_nm": -1.0}, "above 0, not -1.0"),
    ],
)
def test_impossible_attributes_are_refused(structure: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        simulate_attributes(structure, seed=0, index=0, **given)


def test_the_data_set_streams_with_the_attributes_of_each_crop(tmp_path: Path) -> None:
    made = simulate_attribute_set(tmp_path / "crops", counts={"train": 6, "validation": 2})
    assert made.crops == {"train": 12, "validation": 4} and made.sources == made.crops
    sources = {}
    for split, rows in made.crops.items():
        (batch,) = stream(
            tmp_path / "crops",
            split,
            batch_size=rows,
            columns=("metadata", "source", "label"),
            rank=0,
            world_size=1,
            drop_last=False,
        )
        sources[split] = set(batch["source"])
        for pixels, text, label in zip(batch["pixels"], batch["metadata"], batch["label"].tolist(), strict=True):
            metadata = json.loads(text)
            (structure,) = metadata["structures"]
            assert made.labels[label] == structure
            assert set(metadata) & set(RANGES) == {ATTRIBUTES[structure], "fwhm_nm"}
            crop = simulate_attributes(structure, seed=metadata["seed"], index=metadata["index"])
            np.testing.assert_array_equal(pixels[0].numpy(), crop.image)
            assert crop.attributes.items() <= metadata.items()
    assert not sources["train"] & sources["validation"]
    assert len(sources["train"]) == 12
    again = simulate_attribute_set(tmp_path / "crops", counts={"train": 6, "validation": 2})
    assert again.crops == made.crops
    with pytest.raises(UserError, match="seed"):
        simulate_attribute_set(tmp_path / "crops", counts={"train": 6, "validation": 2}, seed=1)


def test_splits_have_different_indices() -> None:
    jobs = list_jobs({"train": 2, "validation": 1})
    assert len({(structure, index) for structure, index, _ in jobs}) == len(jobs) == 6
