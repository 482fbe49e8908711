"""Reading of masks for data sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from stedfm_hf.images import ImageReadError, read_image

MAX_VALUE = 65535
"""Largest value of a mask."""


def read_mask(file: Path) -> np.ndarray:
    """Read a mask.

    Args:
        file: Image file with one series and one channel of whole numbers from 0 to 65535.

    Returns:
        (H, W) uint8, or uint16 if it holds values above 255.

    Raises:
        ImageReadError: The file cannot be read, has several series or channels, or holds other numbers.
    """
    try:
        array = read_image(file).array
    except ImageReadError as error:
        raise ImageReadError(f"its mask {str(error).removeprefix(f'{file.parent}{os.sep}')}") from error
    problem = ""
    if len(array) != 1:
        problem = f"has {len(array)} channels; save it with one channel"
    elif not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= MAX_VALUE and not (array % 1).any()):
        problem = (
            f"holds other values than whole numbers from 0 to {MAX_VALUE}; save the label numbers without scaling"
        )
    if problem:
        raise ImageReadError(f"its mask {file.name} {problem}")

    return array[0].astype(np.uint16 if array.max() > 255 else np.uint8)
