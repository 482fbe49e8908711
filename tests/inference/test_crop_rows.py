"""Rows of a data set of crops as input of `embed`: scaled once, whoever looks at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf import StedFmConfig, StedFmImageProcessor, StedFmModel
from stedfm_hf.data.repository.layout import Crop, Scaling
from stedfm_hf.inference import embed
from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range
from tests.data.repos import write_crops

SIDE = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    StedFmModel(StedFmConfig(num_hidden_layers=1, image_size=SIDE)).save_pretrained(folder)
    StedFmImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """A field whose corners are of very different brightness: scaling a corner for itself shows."""
    rng = np.random.default_rng(0)
    field = rng.poisson(20, (2 * SIDE, 2 * SIDE)).astype(np.uint16)
    field[SIDE:] *= 30
    return field


def vectors(inputs: Path, model: Path, **options: Any) -> np.ndarray:
    table = embed(inputs, model=model, device="cpu", **options).table
    return np.array(table["embedding"].to_pylist())


def crops_of(field: np.ndarray, raw: bool) -> list[Crop]:
    low, high = fit_intensity_range(field[None])[0]
    stored = field if raw else (np.clip((field - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    scaling = Scaling(low, high, applied=not raw, quantiles=(0.001, 0.999))
    return [
        Crop(stored[y : y + SIDE, x : x + SIDE], scaling, source="field", y=y, x=x, series="S", channel="C")
        for y in (0, SIDE)
        for x in (0, SIDE)
    ]


def test_a_raw_row_is_embedded_as_the_piece_of_its_field(tmp_path: Path, model: Path, field: np.ndarray) -> None:
    repo = write_crops(tmp_path / "repo", [crops_of(field, raw=True)])
    np.save(tmp_path / "whole.npy", StedFmImageProcessor().prepare(field)[0, SIDE:, :SIDE])
    piece = vectors(tmp_path / "whole.npy", model, normalization="none")
    np.testing.assert_allclose(vectors(repo, model)[2:3], piece, rtol=0, atol=1e-5)


def test_a_scaled_row_is_divided_by_255_and_not_scaled_again(tmp_path: Path, model: Path, field: np.ndarray) -> None:
    crops = crops_of(field, raw=False)
    repo = write_crops(tmp_path / "repo", [crops])
    np.save(tmp_path / "dark.npy", crops[0].pixels)
    once, again = (vectors(tmp_path / "dark.npy", model, normalization=how) for how in ("none", "percentile"))
    rows = vectors(repo, model)[0:1]
    np.testing.assert_allclose(rows, once, rtol=0, atol=1e-5)
    assert np.abs(rows - again).max() > 1e-3


def test_a_row_says_where_it_comes_from(tmp_path: Path, model: Path, field: np.ndarray) -> None:
    repo = write_crops(tmp_path / "repo", [crops_of(field, raw=True)])
    row = embed(repo, model=model, device="cpu").table.to_pylist()[1]
    assert (row["path"], row["series"], row["channel"], row["height"]) == ("train/1", "S", "C", SIDE)
    assert embed(repo, model=model, device="cpu", series="S").table.num_rows == 4
    assert embed(repo, model=model, device="cpu", series="T").manifest.counts()["failed"] == 4
