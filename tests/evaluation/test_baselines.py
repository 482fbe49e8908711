"""Baseline features: what they depend on, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest

from stedfm_hf.evaluation import intensity_histograms, knn_accuracy, log_spectra
from stedfm_hf.evaluation.baselines import fit_components


def _stripes(period: float, rng: np.random.Generator, size: int = 70) -> np.ndarray:
    phase = rng.uniform(0, 2 * np.pi)
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(size) / period + phase)
    return np.clip(np.tile(wave, (size + 5, 1)) + rng.normal(0, 0.05, (size + 5, size)), 0, 1)


def test_the_histogram_does_not_depend_on_pixel_positions() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((20, 30))
    shuffled = rng.permutation(image.ravel()).reshape(20, 30)
    features = intensity_histograms([image, shuffled, image**3])
    np.testing.assert_array_equal(features[0], features[1])
    assert np.abs(features[0] - features[2]).max() > 0.1
    np.testing.assert_allclose((features**2).sum(axis=1), 1.0)


def test_the_spectrum_depends_on_periods_but_not_on_shifts() -> None:
    rng = np.random.default_rng(0)
    labels = ["fine", "coarse"] * 8
    images = [_stripes(5.0 if label == "fine" else 11.0, rng) for label in labels]
    spectra = log_spectra(images, size=32)
    gallery, query = np.split(fit_components(spectra[:10], components=4).transform(spectra), [10])
    assert gallery.shape == (10, 4)
    assert knn_accuracy(gallery, labels[:10], query, labels[10:], k=3, zscore=False).accuracy == 1.0


@pytest.mark.parametrize("shape", [(1, 1), (7, 90), (64, 64), (65, 63)])
def test_spectra_of_any_size_are_finite(shape: tuple[int, int]) -> None:
    assert np.isfinite(log_spectra([np.zeros(shape)], size=32)).all()
