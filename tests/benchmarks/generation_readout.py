"""Attributes of simulated images, read from their power spectra by regression.

A hand-made measure of one attribute can also depend on another one: the width of the finest structures of actin
decreases when only the rings become more visible. A regression that is fitted to images in which the attributes vary
independently tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def log_spectra(images: np.ndarray) -> np.ndarray:
    """Compute the logarithm of the mean power in rings of spatial frequency (n, size / 2 - 1) of images (n, H, H)."""
    size = images.shape[-1]
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size))) * size
    rings = [(radius >= each - 0.5) & (radius < each + 0.5) for each in range(1, size // 2)]
    power = np.abs(np.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True))) ** 2
    return np.log(np.stack([power[:, ring].mean(axis=1) for ring in rings], axis=1) + 1e-6)


@dataclass(frozen=True)
class Readout:
    """Regression of an attribute on power spectra.

    Attributes:
        model: Fitted regression.
        correlation: Correlation of its predictions with the true values of images that it was not fitted to.
        scale: Standard deviation of these predictions.
    """

    model: Pipeline
    correlation: float
    scale: float

    @classmethod
    def fit(cls, images: np.ndarray, values: np.ndarray) -> Readout:
        """Fit a regression to images (n, H, H) with known values (n,)."""
        model, spectra = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))), log_spectra(images)
        held_out = cross_val_predict(model, spectra, values, cv=5)
        return cls(model.fit(spectra, values), float(np.corrcoef(held_out, values)[0, 1]), float(np.std(held_out)))

    def change(self, first: np.ndarray, last: np.ndarray) -> float:
        """Return the mean change from images to others, in standard deviations over real images."""
        before, after = self.model.predict(log_spectra(first)), self.model.predict(log_spectra(last))
        return float((after - before).mean() / self.scale)
