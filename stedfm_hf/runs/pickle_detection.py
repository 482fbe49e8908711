"""Find pickles, which can run code when they are opened, by name and by content. Nothing is unpickled."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path, PurePath
from typing import IO

SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".bin"}
"""Suffixes of files that usually are pickles."""
_PROTOCOL = b"\x80"
"""First byte of a pickle of protocol 2 and above; the second is the number of the protocol."""
_STARTS = frozenset(b"(]})cSVILFUTXKMJGNB")
"""First bytes of pickles of the protocols 0 and 1."""
_NUMPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_CALLS = {"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
"""Operations of a pickle that run code."""
_MAX_BYTES = 2**26
"""Largest number of bytes of a file that are looked at."""
_MAX_DEPTH = 3
_LONGEST_HEADER = 10**8
"""Largest length of the header of a file of safetensors, in bytes."""


def is_pickle(path: Path) -> bool:
    """Return whether a file is or contains a pickle: by its suffix, by its content, or in a zip or a NumPy array.

    Args:
        path: File.

    Example:
        >>> import pickle, tempfile
        >>> file = Path(tempfile.mkdtemp(), "notes.dat")
        >>> _ = file.write_bytes(pickle.dumps({"a": 1}, protocol=0))
        >>> is_pickle(file)
        True
    """
    if path.suffix.lower() in SUFFIXES and not _is_openvino(path):
        return True
    with path.open("rb") as file:
        return _contains_pickle(file, depth=0)


def _is_openvino(path: Path) -> bool:
    """Return whether the name of a file is that of the weights of an OpenVINO model, which also ends in .bin."""
    return path.suffix.lower() == ".bin" and path.with_suffix(".xml").is_file()


def _contains_pickle(file: IO[bytes], depth: int) -> bool:
    """Return whether an open, seekable file is or contains a pickle, by its content."""
    head = file.read(9)
    file.seek(0)
    if head.startswith(_ZIP):
        return depth < _MAX_DEPTH and _zip_contains_pickle(file, depth)
    if head.startswith(_NUMPY):
        return _has_objects(file)
    if _is_safetensors(head):
        return False
    if len(head) > 1 and head.startswith(_PROTOCOL) and head[1] <= 5:
        return True
    return head[:1] != b"" and head[0] in _STARTS and _is_old_pickle(file.read(_MAX_BYTES))


def _is_safetensors(head: bytes) -> bool:
    """Return whether the first nine bytes of a file are those of safetensors: the length of its header, and a brace.

    The length can begin with any byte, also with that of a pickle.
    """
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _zip_contains_pickle(file: IO[bytes], depth: int) -> bool:
    """Return whether a member of a zip is or contains a pickle, as in archives of PyTorch and `.npz`."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if PurePath(member.filename).suffix.lower() in SUFFIXES - {".bin"}:
                    return True
                with archive.open(member) as opened:
                    if _contains_pickle(io.BytesIO(opened.read(_MAX_BYTES)), depth + 1):
                        return True
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):  # damaged, or with a password: nothing to open
        return False
    return False


def _has_objects(file: IO[bytes]) -> bool:
    """Return whether a NumPy array holds Python objects, which are stored as a pickle."""
    from stedfm_hf.modeling.npy_stedfm import read_npy_header

    try:
        return bool(read_npy_header(file)[2].hasobject)
    except ValueError:  # a damaged header
        return False


def _is_old_pickle(content: bytes) -> bool:
    """Return whether bytes are a pickle of protocol 0 or 1, which has no mark at its beginning.

    A text can begin like one, but hardly has valid operations up to the last byte, or one that runs code.
    """
    names = []
    try:
        for operation, _, at in pickletools.genops(content):
            names.append(operation.name)
            if operation.name == "STOP":
                return len(names) > 1 and (at == len(content) - 1 or not _CALLS.isdisjoint(names))
    except Exception:  # pickletools raises errors of many types for other files
        pass
    return False
