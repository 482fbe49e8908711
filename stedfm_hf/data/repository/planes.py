"""Storage of masks with planes, masks of fractions and regions of interest in a row of a data set.

A plain mask holds one number per pixel. If classes overlap or are fractions (of votes), a mask has one plane for each
class; the columns `mask_planes` and `mask_dtype` hold the names and the dtype of the planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PLANE_COLUMNS = ("mask_planes", "mask_dtype", "region")
"""Columns that a data set has only if one of its crops has a mask with planes or a region."""
PLANE_DTYPES = ("uint8", "uint16", "float16", "float32")
"""Dtypes of the planes of a mask."""
_NUMBERS = "a mask holds whole numbers from 0 to 65535"


def mask_bytes(mask: np.ndarray) -> bytes:
    """Encode a plain mask with one byte per pixel, or with two if it holds values above 255.

    Args:
        mask: Whole numbers from 0 to 65535 (H, W).

    Raises:
        ValueError: The mask holds other values.
    """
    return np.ascontiguousarray(mask, dtype=_integer_dtype(mask).newbyteorder("<")).tobytes()


def planes_columns(mask: np.ndarray | None, names: Sequence[str], region: np.ndarray | None) -> dict[str, Any]:
    """Encode a mask with planes and a region as columns of a row.

    Args:
        mask: Planes (P, H, W): whole numbers from 0 to 65535, or fractions from 0 to 1. Fractions are stored as
            float16 if that is lossless, else as float32.
        names: Names of the planes; () for a plain mask, which this function does not encode.
        region: Region (H, W) with values above 0 where the crop is annotated; None if the whole crop is annotated.

    Returns:
        Values of `mask_planes`, `mask_dtype` and `region`, and of `mask` if it has planes.

    Raises:
        ValueError: The mask holds other values.

    Example:
        >>> votes = np.array([[[0.0, 0.5]], [[1.0, 0.25]]])
        >>> entries = planes_columns(votes, ["round", "elongated"], None)
        >>> entries["mask_dtype"], len(entries["mask"])
        ('float16', 8)
    """
    columns: dict[str, Any] = {
        "mask_planes": None,
        "mask_dtype": None,
        "region": None if region is None else np.ascontiguousarray(region > 0, np.uint8).tobytes(),
    }
    if mask is None or not names:
        return columns
    dtype = _fraction_dtype(mask) if mask.dtype.kind == "f" else _integer_dtype(mask)
    content = np.ascontiguousarray(mask, dtype=dtype.newbyteorder("<")).tobytes()
    return columns | {"mask": content, "mask_planes": list(names), "mask_dtype": dtype.name}


def read_planes(stored: bytes, names: Sequence[str], dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Decode the planes of a mask.

    Args:
        stored: Value of the column `mask`.
        names: Value of the column `mask_planes`.
        dtype: Value of the column `mask_dtype`.
        shape: Height and width of the crop.

    Returns:
        (P, H, W), read-only: uint8 or uint16, or float32 for fractions.

    Raises:
        ValueError: The values do not match, so the row is damaged.
    """
    if dtype not in PLANE_DTYPES:
        raise ValueError(f"mask_dtype {dtype!r} is not one of {', '.join(PLANE_DTYPES)}")
    size = len(names) * shape[0] * shape[1] * np.dtype(dtype).itemsize
    if len(stored) != size:
        raise ValueError(
            f"a mask of {len(stored)} bytes for {len(names)} planes of {shape[0]} x {shape[1]} in {dtype}"
        )
    planes = np.frombuffer(stored, np.dtype(dtype).newbyteorder("<")).reshape(len(names), *shape)
    return planes.astype(np.float32 if dtype.startswith("float") else dtype, copy=False)


def read_region(stored: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Decode the region of a row.

    Args:
        stored: Value of the column `region`.
        shape: Height and width of the crop.

    Returns:
        (H, W) bool, True where the crop is annotated.

    Raises:
        ValueError: The region does not have the size of the crop.
    """
    if len(stored) != shape[0] * shape[1]:
        raise ValueError(f"a region of {len(stored)} bytes for a crop of {shape[0]} x {shape[1]}")
    return np.frombuffer(stored, np.uint8).reshape(shape) > 0


def _integer_dtype(mask: np.ndarray) -> np.dtype[Any]:
    """Return the smallest dtype for a mask of whole numbers; raise `ValueError` for other masks."""
    if mask.dtype.kind not in "biu" or mask.min() < 0 or mask.max() > 65535:
        raise ValueError(_NUMBERS)
    return np.dtype(np.uint16 if mask.max() > 255 else np.uint8)


def _fraction_dtype(mask: np.ndarray) -> np.dtype[Any]:
    """Return float16 if it holds all fractions without loss, else float32; raise `ValueError` for other masks."""
    if not (np.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1):
        raise ValueError("a mask of fractions holds numbers from 0 to 1")
    single = mask.astype(np.float32)
    return np.dtype(np.float16 if (single.astype(np.float16) == single).all() else np.float32)
