"""Reading of HDF5 files with the optional package h5py: `pip install "stedfm-hf[hdf5]"`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.runs import UserError

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")


def list_hdf5_files(files: SourceFiles) -> list[str]:
    """List the HDF5 files of a source.

    Args:
        files: Files of the data set.

    Raises:
        UserError: There is no HDF5 file.
    """
    names = [name for name in files.names if name.lower().endswith(SUFFIXES)]
    if not names:
        raise UserError(
            f"{files.identity['name']}: contains no HDF5 file (.hdf5, .h5). Give the authors' file or folder"
        )
    return names


def open_hdf5(files: SourceFiles, name: str) -> h5py.File:
    """Open an HDF5 file for reading; it is closed together with the source.

    Args:
        files: Files of the data set.
        name: Relative path of the file.

    Raises:
        UserError: h5py is not installed.
        OSError: The file is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError('HDF5 files need the package h5py. Install it with pip install "stedfm-hf[hdf5]"') from error
    return files.stack.enter_context(h5py.File(files.local_path(name), "r"))


def get_member(group: h5py.Group, name: str) -> Any:
    """Return a group or dataset that is stored in the file.

    Links are refused, because a file can link to any other file on this machine.

    Args:
        group: HDF5 group.
        name: Name of the member.

    Raises:
        ValueError: The member does not exist, or it is a link, external or virtual.
    """
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(f"contains no {name!r} (found: {', '.join(group) or 'nothing'})")
    found = group[name] if isinstance(link, h5py.HardLink) else None
    if found is None or (isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)):
        raise ValueError(f"refused: {name!r} is a link, or stored in another file")
    return found


def get_images(group: h5py.Group, name: str) -> Any:
    """Return a dataset of images, without reading them.

    Args:
        group: HDF5 group.
        name: Name of the dataset.

    Returns:
        HDF5 dataset, (N, H, W) or (N, 1, H, W).

    Raises:
        ValueError: The member has another shape or does not exist.
    """
    found = get_member(group, name)
    shape: tuple[int, ...] = getattr(found, "shape", ())
    if not (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)):
        raise ValueError(f"{name!r} is {shape or 'a group'}, not an array (images, height, width)")
    return found


def read_image(found: Any, row: int) -> np.ndarray:
    """Read one image of a dataset.

    Args:
        found: HDF5 dataset of :func:`get_images`.
        row: Number of the image, from 0.

    Returns:
        Pixels, (H, W).
    """
    pixels: np.ndarray = found[row]
    return pixels[0] if pixels.ndim == 3 else pixels


def read_values(group: h5py.Group, name: str, rows: int) -> np.ndarray:
    """Read a dataset with one number or text per image.

    Args:
        group: HDF5 group.
        name: Name of the dataset.
        rows: Number of images.

    Returns:
        Numbers or texts, (rows,).

    Raises:
        ValueError: The dataset does not exist or has another number of entries.
    """
    found = get_member(group, name)
    if getattr(found, "size", None) != rows:
        raise ValueError(f"has {getattr(found, 'size', 'no')} {name} for {rows} images")
    array = np.asarray(found[()]).reshape(-1)
    if array.dtype.kind in "OS":
        return np.array([each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array])
    return array


def list_members(group: h5py.Group) -> Iterator[str]:
    """Yield the names in a group, sorted."""
    yield from sorted(group)
