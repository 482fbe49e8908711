"""Reading of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.data.building.masks import read_mask
from stedfm_hf.images import ImageReadError


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (np.array([[0, 255]], np.uint8), "uint8"),
        (np.array([[0, 256]], np.int32), "uint16"),
        (np.array([[0.0, 3.0]], np.float32), "uint8"),
    ],
)
def test_whole_numbers_are_kept_for_every_dtype(tmp_path: Path, stored: np.ndarray, dtype: str) -> None:
    np.save(tmp_path / "m.npy", stored)
    mask = read_mask(tmp_path / "m.npy")
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, stored)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (np.array([[0.5, 1.0]]), "whole numbers"),
        (np.array([[np.nan, 1.0]]), "whole numbers"),
        (np.array([[-1, 1]], np.int16), "whole numbers"),
        (np.array([[65536, 1]]), "whole numbers"),
        (np.zeros((2, 3, 3), np.uint8), "has 2 channels"),
    ],
)
def test_other_values_are_refused(tmp_path: Path, stored: np.ndarray, words: str) -> None:
    np.save(tmp_path / "m.npy", stored)
    with pytest.raises(ImageReadError, match=f"^its mask m.npy.*{words}"):
        read_mask(tmp_path / "m.npy")


def test_the_message_names_a_damaged_mask_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "m.tif").write_bytes(b"II*\x00rubbish")
    with pytest.raises(ImageReadError, match="^its mask m.tif: ") as caught:
        read_mask(tmp_path / "m.tif")
    assert str(tmp_path) not in str(caught.value)
