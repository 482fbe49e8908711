"""HDF5 files, through h5py, which is an extra: `pip install "stedfm-hf[hdf5]"`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.runs import UserError

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")


def hdf5_names(files: SourceFiles) -> list[str]:
    """The HDF5 files of a source; there is one at least."""
    names = [name for name in files.names if name.lower().endswith(SUFFIXES)]
    if not names:
        raise UserError(f"{files.identity['name']}: holds no HDF5 file (.hdf5, .h5); name the authors' file or folder")
    return names


def open_hdf5(files: SourceFiles, name: str) -> h5py.File:
    """Opens a file for reading; it is closed with the source. A damaged one raises OSError."""
    try:
        import h5py
    except ImportError as error:
        raise UserError('HDF5 files need h5py, which is not installed; pip install "stedfm-hf[hdf5]"') from error
    return files.stack.enter_context(h5py.File(files.local(name), "r"))


def member(group: h5py.Group, name: str) -> Any:
    """A group or a data set that lies in the file itself.

    Raises:
        ValueError: it is not there, or it would be read from elsewhere, for a file can name any other on this machine.
    """
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(f"holds no {name!r} (but {', '.join(group) or 'nothing'})")
    found = group[name] if isinstance(link, h5py.HardLink) else None
    if found is None or (isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)):
        raise ValueError(f"refused, because its {name!r} lies in another place or file")
    return found


def images(group: h5py.Group, name: str) -> Any:
    """A data set of images (N, H, W), or (N, 1, H, W).

    Raises:
        ValueError: it is something else.
    """
    found = member(group, name)
    shape: tuple[int, ...] = getattr(found, "shape", ())
    if not (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)):
        raise ValueError(f"its {name!r} is {shape or 'a group'}, not (images, height, width)")
    return found


def image(found: Any, row: int) -> np.ndarray:
    """One image (H, W)."""
    pixels: np.ndarray = found[row]
    return pixels[0] if pixels.ndim == 3 else pixels


def values(group: h5py.Group, name: str, rows: int) -> np.ndarray:
    """A data set of one number or text for each image.

    Raises:
        ValueError: it has not one entry for each image.
    """
    found = member(group, name)
    if getattr(found, "size", None) != rows:
        raise ValueError(f"has {getattr(found, 'size', 'no')} {name} for {rows} images")
    array = np.asarray(found[()]).reshape(-1)
    if array.dtype.kind in "OS":
        return np.array([each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array])
    return array


def members(group: h5py.Group) -> Iterator[str]:
    """The names in a group, sorted."""
    yield from sorted(group)
