"""Scaling, padding and cropping of images in published data sets.

By default, crops store the pixels of the file and the intensity range for scaling, so nothing is rounded and images
without contrast become zeros. With `legacy`, crops store scaled pixels as in the published code, which divides by zero
for images without contrast and gets NaN.

Source:
    Reference protocol, for the scaling.
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
"""Height and width of crops in all published data sets, in pixels."""


def read_plane(content: bytes, channel: int) -> np.ndarray:
    """Read one plane of a TIFF file.

    Args:
        content: Content of the file.
        channel: Number of the plane among all planes of the file, from 0.

    Returns:
        Pixels, (H, W).

    Raises:
        ValueError: The file has fewer planes.
        Exception: The file is damaged; the type depends on tifffile.
    """
    first = 0
    for series in read_tiff(io.BytesIO(content)):
        planes = series.info.shape[0]
        if first <= channel < first + planes:
            return series.load()[channel - first]
        first += planes
    raise ValueError(f"has {first} planes; the data set needs plane {channel + 1}")


def minmax_crops(
    plane: np.ndarray, corners: Iterable[tuple[int, int]] = ((0, 0),), *, size: int | None = SIZE, legacy: bool = False
) -> list[Crop]:
    """Cut crops from an image that is scaled by its minimum and maximum.

    Args:
        plane: Whole image, (H, W).
        corners: Top left corner (y, x) of each crop, in pixels.
        size: Height and width of the crops, in pixels; pixels outside the image are 0 after scaling. None for one crop
            with the size of the image.
        legacy: Whether to store scaled pixels, which are NaN for an image without contrast.

    Returns:
        Crops without source and label.

    Raises:
        ValueError: The array is empty or not an image, or contains NaN or infinite values.

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
    for y, x in corners:
        pixels = plane if size is None else plane[y : y + size, x : x + size]
        if size is not None and pixels.shape != (size, size):
            missing = [(0, size - length) for length in pixels.shape]
            pixels = np.pad(pixels, missing, constant_values=low)
        crops.append(Crop(pixels, scaling, source="", y=y, x=x))
    return crops


def padded_crops(plane: np.ndarray, *, legacy: bool) -> list[Crop]:
    """Pad an image to 224 x 224 pixels, or cut it on a grid if it is larger.

    Args:
        plane: Whole image, (H, W).
        legacy: Whether to store scaled pixels, as in :func:`minmax_crops`.

    Returns:
        Crops without source and label.

    Raises:
        ValueError: `legacy` is set and the image is larger than a crop, or :func:`minmax_crops` refuses the image.
    """
    if legacy and max(plane.shape) > SIZE:
        raise ValueError(
            f"is {plane.shape[0]} x {plane.shape[1]} pixels; the published code fails above {SIZE} x {SIZE}"
        )
    rows, columns = (grid(max(length, SIZE), CropRule(SIZE)) for length in plane.shape)
    return minmax_crops(plane, [(y, x) for y in rows for x in columns], legacy=legacy)


def crop_as_stored(pixels: np.ndarray) -> Crop:
    """Return a crop with the pixels of the file, for data sets whose scaling is not documented.

    Fractions in [0, 1] count as scaled. Other values get the intensity range of pretraining crops: the 0.1 and 99.9
    percentiles.

    Args:
        pixels: Pixels of the crop, (H, W).

    Raises:
        ValueError: The array is empty or not an image, or contains NaN or infinite values.

    Example:
        >>> crop_as_stored(np.array([[0.0, 0.5]], np.float32)).scaling.applied
        True
    """
    pixels = _storable(pixels)
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:
        return Crop(pixels, Scaling(None, None, applied=True), source="")
    ((low, high),) = fit_intensity_range(pixels[None], "percentile", [0.1, 99.9])
    scaling = Scaling(float(low), float(high), applied=False, quantiles=(0.001, 0.999), fitted_on="crop")
    return Crop(pixels, scaling, source="")


def _storable(pixels: np.ndarray) -> np.ndarray:
    """Check that an array is an image, and convert it to a data type that crops can store."""
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "biuf":
        raise ValueError(f"is an array of {pixels.dtype} {pixels.shape}, not an image (height, width)")
    if not np.isfinite(pixels).all():
        raise ValueError("contains NaN or infinite values")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return pixels if pixels.dtype.name in STORED_DTYPES else pixels.astype(np.float32)
