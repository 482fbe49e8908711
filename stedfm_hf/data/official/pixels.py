"""Scaling, padding and cropping of pixels in the published sets.

By default, pixels are stored unchanged together with their intensity range, so that nothing is rounded and an image
without contrast becomes zeros. With `legacy`, pixels are stored scaled, as the reference passes them to the network;
an image without contrast is then NaN, because the reference divides by zero.

Source: reference protocol (scaling).
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
"""Height and width of a crop in all published sets, in pixels."""


def read_plane(content: bytes, channel: int) -> np.ndarray:
    """Read one plane of a TIFF.

    Args:
        content: Bytes of the file.
        channel: Index of the plane among all planes of the file.

    Returns:
        (H, W) in the dtype of the file.

    Raises:
        ValueError: The file has fewer planes.
        Exception: The file is damaged; tifffile raises various exceptions.
    """
    first = 0
    for series in read_tiff(io.BytesIO(content)):
        planes = series.info.shape[0]
        if first <= channel < first + planes:
            return series.load()[channel - first]
        first += planes
    raise ValueError(f"has {first} planes; plane {channel + 1} is needed")


def minmax_crops(
    plane: np.ndarray, corners: Iterable[tuple[int, int]] = ((0, 0),), *, size: int | None = SIZE, legacy: bool = False
) -> list[Crop]:
    """Cut crops from an image and scale them by the minimum and maximum of the whole image.

    Args:
        plane: (H, W) whole image.
        corners: Row and column of the top left corner of every crop, in pixels.
        size: Height and width of the crops in pixels; pixels beyond the image are 0 after scaling. None: one crop
            of the whole image.
        legacy: Store scaled pixels; NaN for an image without contrast.

    Returns:
        Crops without source and label.

    Raises:
        ValueError: The array is not a non-empty two-dimensional image, or contains NaN or infinite values.

    Example:
        >>> (crop,) = minmax_crops(np.array([[3, 5]], np.uint16), size=2)
        >>> crop.pixels.tolist(), crop.scaling.low, crop.scaling.high
        ([[3, 5], [3, 3]], 3.0, 5.0)
    """
    plane = _to_storable(plane)
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
    """Pad a small image to 224 x 224 pixels, or cut a larger one into crops on a grid.

    Args:
        plane: (H, W) whole image.
        legacy: Store scaled pixels.

    Returns:
        Crops without source and label.

    Raises:
        ValueError: As `minmax_crops`, or the image is larger than a crop and `legacy` is set.
    """
    if legacy and max(plane.shape) > SIZE:
        raise ValueError(
            f"is {plane.shape[0]} x {plane.shape[1]}, larger than {SIZE} pixels; the reference fails on such images"
        )
    rows, columns = (grid(max(length, SIZE), CropRule(SIZE)) for length in plane.shape)
    return minmax_crops(plane, [(y, x) for y in rows for x in columns], legacy=legacy)


def crop_as_stored(pixels: np.ndarray) -> Crop:
    """Store pixels unchanged, for sets whose scaling is not documented.

    Fractions in [0, 1] count as scaled; other values get the intensity range of the pretraining crops, the 0.1 and
    99.9 percentile.

    Args:
        pixels: (H, W) image.

    Returns:
        Crop without source and label.

    Raises:
        ValueError: The array is not a non-empty two-dimensional image, or contains NaN or infinite values.

    Example:
        >>> crop_as_stored(np.array([[0.25, 1.0]])).scaling.applied
        True
    """
    pixels = _to_storable(pixels)
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:
        return Crop(pixels, Scaling(None, None, applied=True), source="")
    ((low, high),) = fit_intensity_range(pixels[None], "percentile", [0.1, 99.9])
    scaling = Scaling(float(low), float(high), applied=False, quantiles=(0.001, 0.999), fitted_on="crop")
    return Crop(pixels, scaling, source="")


def _to_storable(pixels: np.ndarray) -> np.ndarray:
    """Convert an image (H, W) to a dtype that a data set can hold; raise `ValueError` for other arrays and for NaN."""
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "biuf":
        raise ValueError(f"{pixels.dtype} {pixels.shape} is not an image (height, width)")
    if not np.isfinite(pixels).all():
        raise ValueError("contains NaN or infinite values")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return pixels if pixels.dtype.name in STORED_DTYPES else pixels.astype(np.float32)
