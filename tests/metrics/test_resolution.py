from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stedfm_hf.metrics.resolution import fourier_ring_correlation, resolution_nm


def blurred(sigma: float, *, size: int = 256, photons: float = 500.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = (rng.random((size, size)) < 0.01) * photons
    return rng.poisson(gaussian_filter(points, sigma) + 1).astype(float)


def test_rings_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 16, 16))
    window = np.outer(np.hanning(18)[1:-1], np.hanning(18)[1:-1])
    F, G = (np.fft.fft2((each - each.mean()) * window) for each in (first, second))
    _, found = fourier_ring_correlation(first, second)
    for ring in range(1, 9):
        shared = one = two = 0.0
        for y in range(16):
            for x in range(16):
                radius = np.hypot(min(y, 16 - y), min(x, 16 - x))
                if round(radius) == ring:
                    shared += (F[y, x] * np.conj(G[y, x])).real
                    one += abs(F[y, x]) ** 2
                    two += abs(G[y, x]) ** 2
        assert found[ring - 1] == pytest.approx(shared / np.sqrt(one * two), abs=1e-9)


def test_resolution_follows_the_blur() -> None:
    found = [resolution_nm(blurred(sigma), 20.0) for sigma in (1.5, 2.0, 3.0, 4.0)]
    assert found == sorted(found) and found[-1] > 1.5 * found[0]


def test_resolution_is_in_nanometres_and_ignores_gain_and_offset() -> None:
    image = blurred(2.5)
    one = resolution_nm(image, 20.0)
    assert resolution_nm(image, 40.0) == pytest.approx(2 * one)
    assert resolution_nm(3 * image + 100, 20.0) == pytest.approx(one)


def test_noise_and_constant_images_have_no_resolution() -> None:
    assert np.isnan(resolution_nm(np.ones((64, 64)), 20.0))
    noise = [resolution_nm(np.random.default_rng(seed).normal(size=(128, 128)), 20.0) for seed in range(10)]
    assert np.isnan(noise).sum() >= 8


@pytest.mark.parametrize(("shape", "pixel"), [((16, 64), 20.0), ((64,), 20.0), ((64, 64), 0.0)])
def test_bad_input_is_refused(shape: tuple[int, ...], pixel: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        resolution_nm(np.ones(shape), pixel)
