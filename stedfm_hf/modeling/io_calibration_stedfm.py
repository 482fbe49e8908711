"""Calibration of grey values and pixel size in the headers of ImageJ and TIFF."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .io_types_stedfm import pixel_size, unit_in_nm

PLAUSIBLE_PIXEL_NM = 10_000.0  # printing resolutions (72 ... 2400 dpi) mean larger pixels: no microscope wrote them


def declared_planes(imagej: dict[str, Any]) -> int:
    """Return the number of planes in an ImageJ header."""
    counts = [imagej.get(key, 1) for key in ("frames", "slices", "channels")]
    return math.prod(count for count in counts if isinstance(count, int) and count > 0)


def find_calibration(imagej: dict[str, Any], raw: np.dtype[Any]) -> tuple[dict[str, Any], np.dtype[Any]]:
    """Return the calibration of grey values in an ImageJ header, and their type after it.

    ImageJ stores c0 + c1 * value (`cf=0`) for 8- and 16-bit data only, and holds signed 16-bit data shifted by 32768.
    """
    if "cf" not in imagej:
        return {}, raw
    c0, c1 = imagej.get("c0"), imagej.get("c1")
    record = {"function": imagej["cf"], "c0": c0, "c1": c1, "unit": imagej.get("vunit", "")}
    record = {key: value if is_plain(value) else str(value) for key, value in record.items()} | {"applied": False}
    has_coefficients = all(isinstance(c, (int, float)) and math.isfinite(c) and abs(c) < 1e30 for c in (c0, c1))
    if imagej["cf"] != 0 or raw not in (np.uint8, np.uint16, np.int16) or not has_coefficients or c1 == 0:
        return record, raw
    slope = float(c1 or 0)
    offset = float(c0 or 0) + slope * (32768 if raw == np.int16 else 0)
    record |= {"applied": True, "c0": offset, "c1": slope}
    if (offset, slope) == (0.0, 1.0):
        return record, raw
    extremes = [float(end) * slope + offset for end in (np.iinfo(raw).min, np.iinfo(raw).max)]
    for whole in (np.int16, np.int32):
        limits = np.iinfo(whole)
        if offset.is_integer() and slope.is_integer() and limits.min <= min(extremes) <= max(extremes) <= limits.max:
            return record, np.dtype(whole)
    return record, np.dtype(np.float32)


def is_plain(value: object) -> bool:
    """Return whether a value can be stored in JSON."""
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def calibrate(plane: np.ndarray, calibration: dict[str, Any], dtype: np.dtype[Any]) -> np.ndarray:
    """Apply the calibration of `find_calibration` to pixels."""
    if not calibration.get("applied") or (calibration["c0"], calibration["c1"]) == (0.0, 1.0):
        return plane
    if dtype.kind == "f":
        return (plane.astype(np.float64) * calibration["c1"] + calibration["c0"]).astype(dtype)
    return (plane.astype(np.int64) * int(calibration["c1"]) + int(calibration["c0"])).astype(dtype)


def tag_pixel_size(page: Any, imagej: dict[str, Any]) -> tuple[float, float] | None:
    """Return the pixel size (y, x) in nm from the resolution tags; cm and inch only if plausible for a microscope."""
    per_unit = []
    for tag in ("YResolution", "XResolution"):
        value = page.tags.valueof(tag, (0, 1))
        top, bottom = value if isinstance(value, tuple) and len(value) == 2 else (0, 1)
        per_unit.append(top / bottom if bottom else 0.0)
    if not all(per_unit):
        return None
    y, x = (1.0 / each for each in per_unit)
    if imagej.get("unit"):
        across = unit_in_nm(imagej["unit"]) or 0.0
        down = unit_in_nm(imagej["yunit"]) or 0.0 if imagej.get("yunit") else across  # each axis may have its own
        return pixel_size(y * down, x * across)
    unit = {2: 25.4e6, 3: 1e7}.get(int(page.tags.valueof("ResolutionUnit", 2)), 0.0)
    found = pixel_size(y * unit, x * unit)
    return found if found and max(found) < PLAUSIBLE_PIXEL_NM else None
