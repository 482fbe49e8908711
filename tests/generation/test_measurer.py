"""Walks are also measured by the predictions of a classifier or regression model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.generation.measurer import Measurer
from stedfm_hf.generation.measures import MEASURES, measure_images
from stedfm_hf.inference.classification import classify
from stedfm_hf.inference.loading import load_classifier
from tests.generation_models import save_quality_model


def test_predictions_are_those_of_classify(tmp_path: Path) -> None:
    folder = save_quality_model(tmp_path / "quality")
    measure = Measurer(load_classifier(folder, device="cpu"))
    images = np.random.default_rng(0).random((3, 32, 32), np.float32)
    values = measure(images, pixel_size_nm=20.0)
    assert measure.names == (*MEASURES, "value_quality")
    np.testing.assert_array_equal(values[:, :-1], measure_images(images))
    np.save(tmp_path / "image.npy", images[1])
    table = classify(tmp_path / "image.npy", model=folder, device="cpu", normalization="none").table
    assert values[1, -1] == pytest.approx(table["value_quality"][0].as_py(), abs=1e-5)
