"""Reader of HDF5 files, based on h5py (an extra: `pip install "stedfm-hf[hdf5]"`)."""

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
    """Return the HDF5 files of a source.

    Args:
        files: Files of the set.

    Raises:
        UserError: There is no such file.
    """
    names = [name for name in files.names if name.lower().endswith(SUFFIXES)]
    if not names:
        raise UserError(
            f"{files.identity['name']}: contains no HDF5 file (.hdf5, .h5). Pass the authors' file or folder."
        )
    return names


def open_hdf5(files: SourceFiles, name: str) -> h5py.File:
    """Open a file for reading; it is closed together with the source.

    Args:
        files: Files of the set.
        name: Name of the file.

    Raises:
        UserError: h5py is not installed.
        OSError: The file is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError('HDF5 files need h5py, which is not installed. Run: pip install "stedfm-hf[hdf5]"') from error
    return files.stack.enter_context(h5py.File(files.local(name), "r"))


def member(group: h5py.Group, name: str) -> Any:
    """Return a group or dataset that is stored in the file itself.

    Args:
        group: Open file or group.
        name: Name of the member.

    Raises:
        ValueError: The member is missing, or it is a link or stored in another file; a file could otherwise expose
            any file of this machine.
    """
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(f"contains no {name!r}, only {', '.join(group) or 'nothing'}")
    stored = group[name] if isinstance(link, h5py.HardLink) else None
    if stored is None or (isinstance(stored, h5py.Dataset) and (stored.external or stored.is_virtual)):
        raise ValueError(f"refused: {name!r} is a link or is stored in another file")
    return stored


def images(group: h5py.Group, name: str) -> Any:
    """Return a dataset of images, (N, H, W) or (N, 1, H, W).

    Args:
        group: Open file or group.
        name: Name of the dataset.

    Raises:
        ValueError: The member is missing or not a dataset of images.
    """
    dataset = member(group, name)
    shape: tuple[int, ...] = getattr(dataset, "shape", ())
    if not (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)):
        raise ValueError(f"{name!r} is {shape or 'a group'}, not (images, height, width)")
    return dataset


def image(dataset: Any, row: int) -> np.ndarray:
    """Return one image, (H, W).

    Args:
        dataset: Dataset of images.
        row: Index of the image.
    """
    pixels: np.ndarray = dataset[row]
    return pixels[0] if pixels.ndim == 3 else pixels


def values(group: h5py.Group, name: str, rows: int) -> np.ndarray:
    """Read a dataset with one number or text per image.

    Args:
        group: Open file or group.
        name: Name of the dataset.
        rows: Number of images.

    Returns:
        (N,) numbers or str.

    Raises:
        ValueError: The dataset is missing or does not have one entry per image.
    """
    dataset = member(group, name)
    if getattr(dataset, "size", None) != rows:
        raise ValueError(f"has {getattr(dataset, 'size', 'no')} {name} for {rows} images")
    array = np.asarray(dataset[()]).reshape(-1)
    if array.dtype.kind in "OS":
        return np.array([each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array])
    return array


def members(group: h5py.Group) -> Iterator[str]:
    """Yield the names in a group, sorted.

    Args:
        group: Open file or group.
    """
    yield from sorted(group)
