"""Read Zeiss LSM files (`.lsm`): TIFF files with a structure for the pixel size, the axes and the channels.

The pages are read like those of other TIFF files; thumbnails are left out. The rules are in
docs/reference/file-formats.md.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, Any

import numpy as np
import tifffile

from ..modeling.io_tiff_stedfm import read_tiff
from ..modeling.io_types_stedfm import (
    ImageReadError,
    LazySeries,
    file_size,
    make_info,
    one_line,
    pixel_size,
    plane_name,
)
from .stacks import number

_METRE = 1e9
_ROWS = {1: "Z", 2: "T", 4: "Z", 5: "T", 8: "Z", 9: "Z", 10: "T"}
"""Axis of the rows by type of scan, if it is not Y; T is a time, as in a line scan."""


def read_lsm(handle: IO[bytes]) -> list[LazySeries]:
    """List the planes of an LSM file (a reader for `register_reader`)."""
    facts = tifffile.TiffFile(handle, _multifile=False).lsm_metadata or {}
    handle.seek(0)
    rows = _ROWS.get(int(facts.get("ScanType", 0)), "Y")
    found = read_tiff(handle) if rows == "Y" else _sections(handle, rows)
    size = pixel_size(_spacing(facts, rows), _spacing(facts, "X"))
    names = [one_line(str(name)) for name in _names(facts)]
    return [_described(each, size, names) if facts else each for each in found]


def _described(series: LazySeries, size: tuple[float, float] | None, names: list[str]) -> LazySeries:
    """Return a series with the pixel size and the names of the channels."""
    info = series.info
    known = len(names) == info.shape[0] and all(names)
    info = replace(info, pixel_size_nm=size, channel_names=tuple(names) if known else info.channel_names)
    return replace(series, info=info, metadata=series.metadata | {"format": "LSM"})


def _spacing(facts: Mapping[str, Any], axis: str) -> float | None:
    """Return the pixel size along an axis in nm, or None."""
    size = number(facts.get(f"VoxelSize{axis}"))
    return size * _METRE if size and axis != "T" else None


def _names(facts: Mapping[str, Any]) -> list[str]:
    """Return the names of the channels, or none."""
    colours = facts.get("ChannelColors")
    names = colours.get("ColorNames") if isinstance(colours, dict) else None
    return list(names) if isinstance(names, list) else []


def _sections(handle: IO[bytes], rows: str) -> list[LazySeries]:
    """List the pages of sections (XZ) and line scans (XT), which hold all channels of a plane.

    Raises:
        ImageReadError: If a page is not an image.
    """
    tif = tifffile.TiffFile(handle, _multifile=False, is_lsm=False)
    pages = [page for page in tif.pages if isinstance(page, tifffile.TiffPage) and not page.is_reduced]
    found = list[LazySeries]()
    for k, page in enumerate(pages):
        shape = (1, *page.shape) if len(page.shape) == 2 else page.shape
        if page.axes.endswith("S"):
            shape = (shape[-1], *shape[:2])
        if len(shape) != 3 or page.dtype is None:
            raise ImageReadError(f"has no image plane (axes {page.axes} {page.shape}); export it as a plain TIFF")
        packed = int(page.compression) != 1
        name = plane_name("image", {"page": k} if len(pages) > 1 else {})
        info = make_info(name, shape, page.dtype, None, (), stored=file_size(handle), packed=packed)
        metadata = {"format": "LSM", "axes": ["c", rows.lower(), "x"]}
        found.append(LazySeries(info, functools.partial(_load, page, shape), metadata))
    return found


def _load(page: tifffile.TiffPage, shape: tuple[int, ...]) -> np.ndarray:
    """Decode a page as (C, H, W)."""
    pixels = page.asarray(maxworkers=1)
    return np.moveaxis(pixels, -1, 0) if page.axes.endswith("S") else pixels.reshape(shape)
