"""Planes of any size in an OME-Zarr image (version 0.4), written and read in bands of rows."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.runs import UserError
from stedfm_hf.runs.files import move_path, remove_path
from stedfm_hf.runs.storage import is_remote

_CHUNK = 512
_MICROMETRE = "micrometer"


@dataclass(frozen=True)
class ZarrPlanes:
    """Planes (L, H, W) of an open OME-Zarr image.

    Attributes:
        array: Array of zarr.
    """

    array: Any

    def write(self, top: int, band: np.ndarray) -> None:
        """Write rows of every plane (L, n, W), starting at row `top`."""
        self.array[:, top : top + band.shape[1]] = np.ascontiguousarray(band, self.array.dtype)

    def read(self, number: int, top: int, bottom: int) -> np.ndarray:
        """Read rows of one plane (n, W)."""
        return np.asarray(self.array[number, top:bottom])


def import_zarr() -> Any:
    """Import zarr.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise UserError('OME-Zarr needs zarr, which is not installed; pip install "stedfm-hf[formats]"') from error
    return zarr


@contextmanager
def new_zarr_planes(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    *,
    names: Sequence[str],
    limits: tuple[float, float] | None,
    pixel_size_nm: Sequence[float] | None,
    about: Mapping[str, Any],
) -> Iterator[ZarrPlanes]:
    """Create an OME-Zarr image of zeros; it replaces `path` when the block ends without an error.

    The arguments are those of `new_planes`.
    """
    zarr = import_zarr()
    near = None  # a remote image is made on this machine, and then uploaded
    if not is_remote(path):
        near = path.parent
        near.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=near))
    try:
        chunks = (1, min(_CHUNK, shape[1]), min(_CHUNK, shape[2]))
        separator = {"name": "v2", "separator": "/"}
        array = zarr.create_array(
            temporary / "0", shape=shape, dtype=dtype, chunks=chunks, zarr_format=2, chunk_key_encoding=separator
        )
        yield ZarrPlanes(array)
        (temporary / ".zgroup").write_text('{"zarr_format": 2}\n', encoding="utf-8")
        attributes = _attributes(path.name, names, limits or (0, 1), pixel_size_nm, about)
        (temporary / ".zattrs").write_text(
            json.dumps(attributes, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        remove_path(path)
        os.chmod(temporary, 0o755)
        move_path(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _attributes(
    name: str,
    names: Sequence[str],
    limits: tuple[float, float],
    pixel_size_nm: Sequence[float] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the OME metadata; without a pixel size, the axes have no unit."""
    low, high = (float(each) for each in limits)
    window = {"min": low, "max": high, "start": low, "end": high}
    unit = {} if pixel_size_nm is None else {"unit": _MICROMETRE}
    y, x = (1.0, 1.0) if pixel_size_nm is None else (side / 1000.0 for side in pixel_size_nm)
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    scale = [{"type": "scale", "scale": [1.0, y, x]}]
    multiscale = {"version": "0.4", "name": name, "axes": axes, "metadata": dict(about)}
    multiscale["datasets"] = [{"path": "0", "coordinateTransformations": scale}]
    channels = [{"label": each, "color": "FFFFFF", "active": True, "window": window} for each in names]
    return {"multiscales": [multiscale], "omero": {"version": "0.4", "channels": channels}}
