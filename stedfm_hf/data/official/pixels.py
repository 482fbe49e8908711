"""Pixels as the published sets scale, pad and cut them.

By default the pixels are kept as they are in the file, with the limits that mean 0 and 1 beside them, so that nothing
is rounded and an image without contrast becomes zeros. `legacy` gives what the reference hands to the network: scaled
pixels, which for such an image are NaN, because it divides by zero. (Scaling: reference protocol.)
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np

from stedfm_hf.data.building.cropping import CropRule, grid
from stedfm_hf.data.repository.layout import STORED_DTYPES, Crop, Scaling
from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range
from stedfm_hf.modeling.io_tiff_stedfm import read_tiff

SIZE = 224
"""Side of a crop in all published sets."""


def read_plane(content: bytes, channel: int) -> np.ndarray:
    """One plane (H, W) of a TIFF, by its number among all planes of the file.

    Raises:
        ValueError: the file has fewer.
        Exception: whatever damaged bytes raise in tifffile.
    """
    first = 0
    for series in read_tiff(io.BytesIO(content)):
        planes = series.info.shape[0]
        if first <= channel < first + planes:
            return series.load()[channel - first]
        first += planes
    raise ValueError(f"has {first} planes, and the set takes plane {channel + 1}")


def minmax_crops(
    plane: np.ndarray, places: Iterable[tuple[int, int]] = ((0, 0),), *, size: int | None = SIZE, legacy: bool = False
) -> list[Crop]:
    """Crops of an image that is scaled by its own least and greatest value.

    Args:
        plane: (H, W), the whole image.
        places: row and column of the top left corner of every crop.
        size: side of the crops; what lies beyond the image is 0 after scaling. None takes the image as it is.
        legacy: give scaled pixels; of an image without contrast NaN.

    Returns:
        The crops, without a source and a label.

    Raises:
        ValueError: the image is empty, no image, or holds values that are no numbers.

    Example:
        >>> (crop,) = minmax_crops(np.array([[3, 5]], np.uint16), size=2)
        >>> crop.pixels.tolist(), crop.scaling.low, crop.scaling.high
        ([[3, 5], [3, 3]], 3.0, 5.0)
    """
    plane = _storable(plane)
    low, high = plane.min(), plane.max()
    if legacy:
        with np.errstate(invalid="ignore"):
            plane = (plane - low) / (high - low)
        low = plane.dtype.type(0)
        scaling = Scaling(None, None, applied=True)
    else:
        scaling = Scaling(float(low), float(high), applied=False, quantiles=(0.0, 1.0))
    crops = []
    for y, x in places:
        pixels = plane if size is None else plane[y : y + size, x : x + size]
        if size is not None and pixels.shape != (size, size):
            missing = [(0, size - side) for side in pixels.shape]
            pixels = np.pad(pixels, missing, constant_values=low)
        crops.append(Crop(pixels, scaling, source="", y=y, x=x))
    return crops


def padded_crops(plane: np.ndarray, *, legacy: bool) -> list[Crop]:
    """Crops of a small image, filled up to 224 pixels; of a larger one, on a grid.

    Raises:
        ValueError: `legacy`, and the image is larger than a crop; or as :func:`minmax_crops`.
    """
    if legacy and max(plane.shape) > SIZE:
        raise ValueError(f"is {plane.shape[0]} x {plane.shape[1]}, larger than {SIZE}, at which the reference fails")
    rows, columns = (grid(max(side, SIZE), CropRule(SIZE)) for side in plane.shape)
    return minmax_crops(plane, [(y, x) for y in rows for x in columns], legacy=legacy)


def crop_as_stored(pixels: np.ndarray) -> Crop:
    """A crop whose scaling nobody wrote down: taken as it is in the file.

    Fractions from 0 to 1 are scaled already; other numbers get the limits that the pretraining crops have.

    Raises:
        ValueError: it is empty, no image, or holds values that are no numbers.
    """
    pixels = _storable(pixels)
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:
        return Crop(pixels, Scaling(None, None, applied=True), source="")
    ((low, high),) = fit_intensity_range(pixels[None], "percentile", [0.1, 99.9])
    scaling = Scaling(float(low), float(high), applied=False, quantiles=(0.001, 0.999), fitted_on="crop")
    return Crop(pixels, scaling, source="")


def _storable(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "biuf":
        raise ValueError(f"is {pixels.dtype} {pixels.shape}, not an image (height, width)")
    if not np.isfinite(pixels).all():
        raise ValueError("holds values that are NaN or infinite")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return pixels if pixels.dtype.name in STORED_DTYPES else pixels.astype(np.float32)
