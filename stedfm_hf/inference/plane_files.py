"""Planes of any size in a TIFF for ImageJ, an OME-TIFF or an OME-Zarr image, written and read in bands of rows.

Files are not memory-mapped: mapped pages count as memory of the process, and a field of 20 000 x 20 000 pixels would
need gigabytes.
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

from stedfm_hf.inference.zarr_planes import ZarrPlanes, new_zarr_planes
from stedfm_hf.runs import atomic_path

CLASSIC_PLANE = 2**32 - 2**25
"""Largest plane that ImageJ opens without a plugin, in bytes; a larger one is written as BigTIFF."""


@dataclass(frozen=True)
class Planes:
    """Open file of planes (L, H, W).

    Attributes:
        handle: File, open for reading and writing.
        offset: Position of the first plane, in bytes; the others follow without a gap.
        shape: Number of planes, height and width.
        dtype: Type of the pixels.
    """

    handle: BinaryIO
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def write(self, top: int, band: np.ndarray) -> None:
        """Write rows of every plane (L, n, W), starting at row `top`."""
        for number, rows in enumerate(band):
            self.handle.seek(self._place(number, top))
            self.handle.write(np.ascontiguousarray(rows, self.dtype).data)

    def read(self, number: int, top: int, bottom: int) -> np.ndarray:
        """Read rows of one plane (n, W)."""
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
) -> Iterator[Planes | ZarrPlanes]:
    """Create a file of zeros to write planes to; it is renamed to `path` when the block ends without an error.

    The suffix decides the format: `.ome.zarr`, `.ome.tif`, or a TIFF for ImageJ. Every plane is a named channel, and
    the pixel size is stored in µm. Above 4 GiB a TIFF for ImageJ is a stack with one header for all planes, as ImageJ
    writes it; a single plane above this size makes a BigTIFF.

    Args:
        path: File to write.
        shape: Number of planes, height and width.
        dtype: Type of the pixels: uint8, uint16 or float32, the types of ImageJ.
        names: Names of the L planes.
        limits: Values shown as black and white; None leaves them to the viewer.
        pixel_size_nm: Pixel size (y, x) in nm; None makes the unit pixels.
        about: Other metadata, shown by ImageJ under Image > Show Info.

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
    if path.name.endswith(".ome.zarr"):
        with new_zarr_planes(
            path, shape, dtype, names=names, limits=limits, pixel_size_nm=pixel_size_nm, about=about
        ) as zarr_planes:
            yield zarr_planes
        return
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
    if path.name.endswith(".ome.tif"):
        ome: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(names)}, "Description": metadata["Info"]}
        if pixel_size_nm is not None:
            ome |= {"PhysicalSizeY": y, "PhysicalSizeYUnit": "µm", "PhysicalSizeX": x, "PhysicalSizeXUnit": "µm"}
        kind = {"ome": True, "bigtiff": plane * shape[0] > CLASSIC_PLANE, "metadata": ome, "photometric": "minisblack"}
    elif plane > CLASSIC_PLANE:
        kind = {"bigtiff": True, "metadata": {"axes": "CYX", "Channel": {"Name": list(names)}}}
        if pixel_size_nm is not None:
            kind |= {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}
    elif plane * shape[0] > CLASSIC_PLANE:
        kind["truncate"] = True
    with atomic_path(path) as temporary:
        place = tifffile.imwrite(temporary, shape=shape, dtype=dtype, returnoffset=True, **kind)
        assert place is not None, "uncompressed planes are contiguous"
        with temporary.open("r+b") as handle:
            yield Planes(handle, place[0], shape, dtype)
