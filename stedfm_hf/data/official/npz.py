"""Reader of `.npz` files that decodes pickled arrays with the closed unpickler and executes nothing."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np

from stedfm_hf.data.archives.members import printable
from stedfm_hf.modeling.npy_stedfm import read_npy_header
from stedfm_hf.runs.closed_pickle import ClosedUnpickler

MAX_ARRAY_BYTES = 2**26
MAX_OBJECT_BYTES = 2**18
MAX_MEMBERS = 64


def read_npz(content: bytes, *names: str) -> dict[str, Any]:
    """Read arrays of a `.npz` file.

    Args:
        content: Bytes of the file.
        names: Names of the arrays; missing ones are skipped.

    Returns:
        Arrays by name; a single pickled object is returned as plain Python data.

    Raises:
        ValueError: An array is too large, or a pickle contains more than plain data.
        Exception: The file is damaged; NumPy and zipfile raise various exceptions.

    Example:
        >>> buffer = io.BytesIO()
        >>> np.savez(buffer, image=np.zeros((2, 3)), metadata={"condition": "Block"})
        >>> arrays = read_npz(buffer.getvalue(), "image", "metadata", "mask")
        >>> arrays["image"].shape, arrays["metadata"], "mask" in arrays
        ((2, 3), {'condition': 'Block'}, False)
    """
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()[:MAX_MEMBERS]}
        for name in names:
            if (info := members.get(f"{name}.npy")) is None:
                continue
            if info.file_size > MAX_ARRAY_BYTES:
                raise ValueError(
                    f"refused: {info.filename} unpacks to {info.file_size} bytes, more than {MAX_ARRAY_BYTES}"
                )
            arrays[name] = _decode(name, archive.read(info))
    return arrays


def _decode(name: str, content: bytes) -> Any:
    """Decode the bytes of a `.npy` file: an array, or the plain data of a pickled object, without running code.

    Raises:
        ValueError: The number of bytes does not match the shape, or a pickle is too large or not plain data.
    """
    stream = io.BytesIO(content)
    shape, _, dtype = read_npy_header(stream)
    if not dtype.hasobject:
        if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
            raise ValueError(
                f"array {name} {shape} of {dtype} has {len(content) - stream.tell()} bytes. Download the file again."
            )
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    if len(content) > MAX_OBJECT_BYTES:
        raise ValueError(f"refused: the pickled {name} has {len(content)} bytes, more than {MAX_OBJECT_BYTES}")
    unpickler = ClosedUnpickler(content[stream.tell() :])
    value = unpickler.load()
    if unpickler.placeholders:
        named = printable(", ".join(sorted(unpickler.placeholders)))
        raise ValueError(
            f"refused: the pickled {name} contains {named}, which is not plain data; nothing was executed"
        )
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
