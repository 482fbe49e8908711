"""Rows of a data set, and their decoding to tensors."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stedfm_hf.data import decode, to_unit_range
from stedfm_hf.data.repository.layout import STORED_DTYPES, Crop, Scaling, crops_to_table
from stedfm_hf.runs import UserError
from tests.data.repos import write_crops

SCALED = Scaling(3.0, 90.0, applied=True, quantiles=(0.001, 0.999))
PIXELS = st.sampled_from(STORED_DTYPES).flatmap(
    lambda name: arrays.arrays(np.dtype(name), st.tuples(st.integers(1, 5), st.integers(1, 5)))
)


@given(pixels=PIXELS, count=st.integers(1, 3))
def test_pixels_are_decoded_bit_by_bit(pixels: np.ndarray, count: int) -> None:
    crop = Crop(pixels, Scaling(0.0, 1.0, applied=False), source="a")
    batch = decode(crops_to_table([crop] * count))
    assert batch["pixels"].shape == (count, 1, *pixels.shape)
    for restored in batch["pixels"].numpy()[:, 0]:
        assert restored.dtype == pixels.dtype and restored.tobytes() == pixels.tobytes()


def test_byte_order_and_strides_do_not_change_the_stored_bytes() -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for same in (pixels.astype(">u2"), np.asfortranarray(pixels), pixels[::-1][::-1]):
        decoded = decode(crops_to_table([Crop(same, SCALED, source="a")]))["pixels"]
        np.testing.assert_array_equal(decoded[0, 0].numpy(), pixels)


def test_a_row_a_list_of_rows_and_a_table_are_decoded_equally(tmp_path: Path) -> None:
    mask = np.arange(12).reshape(3, 4)
    crops = [Crop(np.full((3, 4), n, np.uint8), SCALED, "s", mask=mask, pixel_size_nm=(20.0, 20.0)) for n in range(4)]
    rows = datasets.load_dataset(str(write_crops(tmp_path, [crops])), split="train")
    row, batch = decode(rows[2]), decode(rows[0:4])
    assert row["pixels"].shape == (1, 3, 4) and row["pixels"].unique().tolist() == [2]
    assert row["pixel_size_nm"] == [20.0, 20.0] and row["source"] == "s" and int(row["label"]) == -1
    torch.testing.assert_close(row["mask"], torch.from_numpy(mask.astype(np.uint8)))
    torch.testing.assert_close(batch["pixels"][2], row["pixels"])
    torch.testing.assert_close(decode(rows.with_format("arrow")[1:3])["pixels"], batch["pixels"][1:3])
    transformed = rows.with_transform(decode)
    torch.testing.assert_close(transformed[0:2]["pixels"], batch["pixels"][0:2])


def test_scaled_rows_are_divided_by_the_largest_value_of_their_type_and_others_by_their_range() -> None:
    pixels = np.array([[0, 51, 255]], np.uint8)
    scaled = decode(crops_to_table([Crop(pixels, SCALED, "a")]))
    np.testing.assert_allclose(to_unit_range(scaled["pixels"], scaled["intensity_range"]).ravel(), [0, 0.2, 1])
    counts = np.array([[-10, 3, 46, 90, 500]], np.int16)
    raw = decode(crops_to_table([Crop(counts, Scaling(3, 90, applied=False), "a")]))
    unit = to_unit_range(raw["pixels"], raw["intensity_range"])
    np.testing.assert_allclose(unit.ravel(), [0, 0, 43 / 87, 1, 1], rtol=1e-6)


def test_an_empty_range_gives_zeros() -> None:
    pixels = torch.tensor([[[[5, 7]]]], dtype=torch.uint8)
    assert to_unit_range(pixels, torch.tensor([[7.0, 7.0]])).tolist() == [[[[0.0, 0.0]]]]


def test_masks_use_the_smallest_dtype_and_missing_ones_are_zero() -> None:
    wide = np.array([[0, 70, 60_000]])
    crops = [Crop(np.zeros((1, 3), np.uint8), SCALED, "a", mask=mask) for mask in (wide, wide // 1000, None)]
    table = crops_to_table(crops)
    assert [row and len(row) for row in table["mask"].to_pylist()] == [6, 3, None]
    assert decode(table)["mask"].tolist() == [[[0, 70, 60_000]], [[0, 0, 60]], [[0, 0, 0]]]
    assert "mask" not in decode(table.slice(2))


@pytest.mark.parametrize("pixels", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), complex), np.zeros((2, 2), bool)])
def test_invalid_crops_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a crop is \(height, width\)"):
        Crop(pixels, SCALED, source="a")


@pytest.mark.parametrize("mask", [np.array([[-1, 0]]), np.array([[0, 70_000]]), np.array([[0.5, 0.0]])])
def test_invalid_masks_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 65535"):
        crops_to_table([Crop(np.zeros((1, 2), np.uint8), SCALED, "a", mask=mask)])
    with pytest.raises(ValueError, match="the mask is"):
        Crop(np.zeros((2, 2), np.uint8), SCALED, "a", mask=mask)


def test_damaged_and_mixed_rows_are_reported() -> None:
    one, other = (crops_to_table([Crop(np.zeros(shape, np.uint8), SCALED, "a")]) for shape in ((2, 2), (2, 3)))
    row = one.to_pylist()[0]
    with pytest.raises(UserError, match="damaged rows: 3 bytes for 1 crops of 2 x 2"):
        decode(row | {"pixels": b"123"})
    with pytest.raises(UserError, match="damaged row: a mask of 3 bytes"):
        decode(row | {"mask": b"123"})
    rows = {name: [row[name], other.to_pylist()[0][name]] for name in row}
    with pytest.raises(UserError, match="2 x 2 uint8, 2 x 3 uint8"):
        decode(rows)
