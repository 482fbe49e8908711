"""Planes of any size in a TIFF that ImageJ opens in place, written and read in bands of rows.

Nothing is mapped into memory: mapped pages count as memory of the process, and a field of 20 000 x 20 000 pixels would
need gigabytes of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from stedfm_hf.runs import atomic_path

CLASSIC_PLANE = 2**32 - 2**25
"""Bytes of a plane up to which ImageJ opens the file by itself; beyond it is a BigTIFF."""


@dataclass(frozen=True)
class Planes:
    """An open file of planes (L, H, W).

    Attributes:
        handle: Open for reading and writing.
        offset: Where the first plane begins, in bytes; the others follow it without a gap.
        shape: (L, H, W).
        dtype: Of the pixels.
    """

    handle: BinaryIO
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def write(self, top: int, band: np.ndarray) -> None:
        """Write the rows from `top` on of every plane, (L, n, W)."""
        for number, rows in enumerate(band):
            self.handle.seek(self._place(number, top))
            self.handle.write(np.ascontiguousarray(rows, self.dtype).data)

    def read(self, number: int, top: int, bottom: int) -> np.ndarray:
        """Read rows of one plane, (n, W)."""
        self.handle.seek(self._place(number, top))
        count = (bottom - top) * self.shape[2]
        return np.frombuffer(self.handle.read(count * self.dtype.itemsize), self.dtype).reshape(bottom - top, -1)

    def _place(self, number: int, row: int) -> int:
        return self.offset + (number * self.shape[1] + row) * self.shape[2] * self.dtype.itemsize


@contextmanager
def new_planes(
    path: Path,
    shape: tuple[int, int, int],
    dtype: Any,
    *,
    names: Sequence[str],
    limits: tuple[float, float] | None,
    pixel_size_nm: Sequence[float] | None,
    about: Mapping[str, Any],
) -> Iterator[Planes]:
    """Make a TIFF of zeros to write to; it gets its name when the block ends without an error.

    A channel for every plane, with its name, and the pixel size in µm as ImageJ keeps it. Above 4 GiB the file is a
    stack as ImageJ itself writes it, with one header for all planes; a single plane above that makes a BigTIFF.

    Args:
        path: The file.
        shape: (L, H, W).
        dtype: uint8, uint16 or float32: the types that ImageJ knows.
        names: What the L planes are called.
        limits: Black and white on display; None leaves them to the viewer.
        pixel_size_nm: (y, x), or None: the unit is the pixel then.
        about: What else is written, readable in ImageJ under Image > Show Info.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "rings.tif")
        >>> facts = {"names": ["rings"], "limits": (0, 1), "pixel_size_nm": (20, 20), "about": {}}
        >>> with new_planes(path, (1, 5, 7), np.uint8, **facts) as planes:
        ...     planes.write(3, np.ones((1, 2, 7)))
        >>> tifffile.imread(path).sum(axis=1).tolist()
        [0, 0, 0, 7, 7]
    """
    dtype = np.dtype(dtype)
    y, x = (1.0, 1.0) if pixel_size_nm is None else (side / 1000.0 for side in pixel_size_nm)
    metadata: dict[str, Any] = {
        "axes": "CYX",
        "unit": "pixel" if pixel_size_nm is None else "um",
        "mode": "grayscale",
        "Labels": list(names),
        "Info": json.dumps(about, ensure_ascii=False),
    }
    if limits is not None:
        metadata |= {"min": limits[0], "max": limits[1]}
    kind: dict[str, Any] = {"imagej": True, "resolution": (1.0 / x, 1.0 / y), "metadata": metadata}
    plane = shape[1] * shape[2] * dtype.itemsize
    if plane > CLASSIC_PLANE:
        kind = {"bigtiff": True, "metadata": {"axes": "CYX", "Channel": {"Name": list(names)}}}
        if pixel_size_nm is not None:
            kind |= {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}
    elif plane * shape[0] > CLASSIC_PLANE:
        kind["truncate"] = True
    with atomic_path(path) as temporary:
        place = tifffile.imwrite(temporary, shape=shape, dtype=dtype, returnoffset=True, **kind)
        assert place is not None, "planes that are not compressed lie in one piece"
        with temporary.open("r+b") as handle:
            yield Planes(handle, place[0], shape, dtype)
