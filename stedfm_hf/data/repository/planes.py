"""Masks of several planes, masks of fractions and regions of interest: how a row of the data set holds them.

A plain mask is a number for every pixel, and needs no more than its bytes. Where classes overlap, or where votes are
fractions, a mask has a plane for each class, one after the other, whose names and type stand beside it. (Ours.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PLANE_COLUMNS = ("mask_planes", "mask_dtype", "region")
"""Columns that a data set has only where a crop of it has planes or a region."""
PLANE_DTYPES = ("uint8", "uint16", "float16", "float32")
_NUMBERS = "a mask holds whole numbers from 0 to 65535"


def mask_bytes(mask: np.ndarray) -> bytes:
    """A number for every pixel: a byte where that is enough, else two; the length tells which.

    Raises:
        ValueError: these are no whole numbers from 0 to 65535.
    """
    return np.ascontiguousarray(mask, dtype=f"<{_whole(mask).str[1:]}").tobytes()


def planes_columns(mask: np.ndarray | None, names: Sequence[str], region: np.ndarray | None) -> dict[str, Any]:
    """The entries of a row that a plain mask does not have.

    Args:
        mask: (P, H, W): whole numbers from 0 to 65535, or fractions from 0 to 1. Fractions are stored in 16 bit where
            nothing is lost by it, else as float32, which is what targets are made of.
        names: of the planes; () of a plain mask, whose bytes are not made here.
        region: (H, W), where the annotation counts; None: everywhere.

    Returns:
        `mask_planes`, `mask_dtype` and `region`, and `mask` of one with planes.

    Raises:
        ValueError: the mask holds other numbers.

    Example:
        >>> votes = np.array([[[0.0, 0.5]], [[1.0, 0.25]]])
        >>> entries = planes_columns(votes, ["round", "elongated"], None)
        >>> entries["mask_dtype"], len(entries["mask"])
        ('float16', 8)
    """
    found: dict[str, Any] = {
        "mask_planes": None,
        "mask_dtype": None,
        "region": None if region is None else np.ascontiguousarray(region > 0, np.uint8).tobytes(),
    }
    if mask is None or not names:
        return found
    dtype = _fractions(mask) if mask.dtype.kind == "f" else _whole(mask)
    content = np.ascontiguousarray(mask, dtype=dtype.newbyteorder("<")).tobytes()
    return found | {"mask": content, "mask_planes": list(names), "mask_dtype": dtype.name}


def read_planes(stored: bytes, names: Sequence[str], dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The planes of a row (P, H, W): uint8, uint16, or float32 of fractions; read-only.

    Raises:
        ValueError: they do not fit together: the row is damaged.
    """
    if dtype not in PLANE_DTYPES:
        raise ValueError(f"a mask of {dtype!r}, which is none of {', '.join(PLANE_DTYPES)}")
    size = len(names) * shape[0] * shape[1] * np.dtype(dtype).itemsize
    if len(stored) != size:
        raise ValueError(
            f"a mask of {len(stored)} bytes for {len(names)} planes of {shape[0]} x {shape[1]} in {dtype}"
        )
    planes = np.frombuffer(stored, np.dtype(dtype).newbyteorder("<")).reshape(len(names), *shape)
    return planes.astype(np.float32 if dtype.startswith("float") else dtype, copy=False)


def read_region(stored: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The region of a row, (H, W) bool.

    Raises:
        ValueError: it has not the size of the crop.
    """
    if len(stored) != shape[0] * shape[1]:
        raise ValueError(f"a region of {len(stored)} bytes for a crop of {shape[0]} x {shape[1]}")
    return np.frombuffer(stored, np.uint8).reshape(shape) > 0


def _whole(mask: np.ndarray) -> np.dtype[Any]:
    if mask.dtype.kind not in "biu" or mask.min() < 0 or mask.max() > 65535:
        raise ValueError(_NUMBERS)
    return np.dtype(np.uint16 if mask.max() > 255 else np.uint8)


def _fractions(mask: np.ndarray) -> np.dtype[Any]:
    if not (np.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1):
        raise ValueError("a mask of fractions holds numbers from 0 to 1")
    single = mask.astype(np.float32)
    return np.dtype(np.float16 if (single.astype(np.float16) == single).all() else np.float32)
