"""The arrays of an `.npz`, pickled ones through the closed reader: nothing of the file is ever run."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np

from stedfm_hf.data.archives.members import printable
from stedfm_hf.runs.closed_pickle import ClosedUnpickler

MAX_ARRAY_BYTES = 2**26
MAX_OBJECT_BYTES = 2**18
MAX_MEMBERS = 64


def read_npz(content: bytes, *names: str) -> dict[str, Any]:
    """Some arrays of a file.

    Args:
        content: the bytes of the file.
        names: of the wanted arrays; those that are not there are left out.

    Returns:
        Arrays by name; where one holds a single pickled object, that object, made of plain data.

    Raises:
        ValueError: an array is too large, or a pickle names anything but plain data.
        Exception: whatever damaged bytes raise in the libraries.

    Example:
        >>> buffer = io.BytesIO()
        >>> np.savez(buffer, image=np.zeros((2, 3)), metadata={"condition": "Block"})
        >>> found = read_npz(buffer.getvalue(), "image", "metadata", "mask")
        >>> found["image"].shape, found["metadata"], "mask" in found
        ((2, 3), {'condition': 'Block'}, False)
    """
    found: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()[:MAX_MEMBERS]}
        for name in names:
            if (info := members.get(f"{name}.npy")) is None:
                continue
            if info.file_size > MAX_ARRAY_BYTES:
                raise ValueError(f"refused, because its {info.filename} unpacks to {info.file_size} bytes")
            found[name] = _array(name, archive.read(info))
    return found


def _array(name: str, content: bytes) -> Any:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    wide = version != (1, 0)
    header = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
    shape, _, dtype = header(stream)
    if not dtype.hasobject:
        if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
            raise ValueError(f"its {name} {shape} of {dtype} has {len(content) - stream.tell()} bytes; get it again")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    if len(content) > MAX_OBJECT_BYTES:
        raise ValueError(f"refused, because its pickled {name} has {len(content)} bytes")
    unpickler = ClosedUnpickler(content[stream.tell() :])
    value = unpickler.load()
    if unpickler.placeholders:
        named = printable(", ".join(sorted(unpickler.placeholders)))
        raise ValueError(f"refused, because its {name} names {named}, which is no plain data; nothing of it was run")
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
