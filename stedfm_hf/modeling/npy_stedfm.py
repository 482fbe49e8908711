"""Read the headers of NumPy files from several threads."""

from __future__ import annotations

import io
import threading
from typing import IO, Any

import numpy as np

_LONGEST_HEADER = 2**16  # bytes; NumPy refuses those above 10,000
_parsing = threading.Lock()


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an `.npy` stream; the stream is then at the first byte of the array.

    NumPy parses the header with `ast.literal_eval`. CPython counts the depth of its recursion for all threads together
    (https://github.com/python/cpython/issues/106905), so that two headers that are parsed at once can fail with a
    SystemError. Here they are parsed one after the other.

    Args:
        stream: Stream at the signature of the file.

    Returns:
        Shape, whether the array is in Fortran order, and dtype.

    Raises:
        ValueError: The header is damaged. For some damage, NumPy raises other errors of the parser.

    Example:
        >>> import io
        >>> import numpy as np
        >>> stream = io.BytesIO()
        >>> np.save(stream, np.zeros((2, 3), np.uint16))
        >>> _ = stream.seek(0)
        >>> read_npy_header(stream)
        ((2, 3), False, dtype('uint16'))
    """
    is_version_1 = np.lib.format.read_magic(stream) == (1, 0)
    length = stream.read(2 if is_version_1 else 4)
    header = io.BytesIO(length + stream.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER)))
    read = np.lib.format.read_array_header_1_0 if is_version_1 else np.lib.format.read_array_header_2_0
    with _parsing:
        return read(header)
