"""Safe reader of PyTorch checkpoints: it rebuilds tensors and plain data, and executes nothing."""

from __future__ import annotations

import pickle
import struct
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from stedfm_hf.runs.closed_pickle import Placeholder
from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights.torch_pickle import TorchUnpickler

__all__ = ["Checkpoint", "Placeholder", "read_checkpoint"]

# The pickle holds names and shapes, the numbers are in other members: 64 MiB are enough for a million tensors.
MAX_PICKLE_BYTES = 64 * 2**20
# Exceptions that damaged bytes raise in zipfile, pickletools, torch and the closed unpickler.
_BROKEN: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,  # with RecursionError and NotImplementedError
    AssertionError,
    OSError,
    EOFError,
    MemoryError,
    struct.error,
    pickle.PickleError,
    zipfile.BadZipFile,
)


class Checkpoint(dict[str, Any]):
    """Top-level dictionary of a checkpoint.

    Attributes:
        placeholders: Names of the classes and functions in the file that were not rebuilt; each of their objects is
            an inert `Placeholder`.
    """

    def __init__(self, content: dict[str, Any], placeholders: tuple[str, ...] = ()) -> None:
        super().__init__(content)
        self.placeholders = placeholders


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file written by `torch.save` without executing anything in it.

    `torch.load(weights_only=True)` is tried first, with a memory-mapped file. If it refuses because the file holds
    other objects (a criterion, a `defaultdict`), `TorchUnpickler` rebuilds tensors, plain containers and numbers, and
    replaces all other objects by placeholders.

    Args:
        path: File with suffix `.pth`, `.pt` or `.ckpt`. Files of PyTorch before 1.6, which are not zip archives, are
            read only if `weights_only=True` can read them.

    Returns:
        Dictionary in the file. Its tensors are on the CPU and may be memory-mapped: copy them before the file is
        removed.

    Raises:
        UserError: If the file is missing or damaged, unpacks to more than its size, or is a TorchScript program or
            not a dictionary.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
        >>> torch.save({"epoch": 3, "loss": torch.nn.CrossEntropyLoss()}, path)
        >>> checkpoint = read_checkpoint(path)
        >>> checkpoint["epoch"], checkpoint["loss"]
        (3, <placeholder of torch.nn.modules.loss.CrossEntropyLoss>)
    """
    path = Path(path)
    is_archive = _is_zip(path)
    pickle_name = _check_archive(path) if is_archive else None
    placeholders: set[str] = set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: `TorchUnpickler` reads what torch cannot
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except _BROKEN as error:
        if pickle_name is None:
            raise UserError(
                f"{path}: is not a PyTorch checkpoint, or one of PyTorch before 1.6 that holds more than tensors; "
                "save its state_dict() again with a current PyTorch"
            ) from error
        if not isinstance(error, pickle.UnpicklingError):
            raise UserError(f"{path}: is not a readable PyTorch checkpoint ({_first_line(error)})") from error
        content, placeholders = _read_closed(path, pickle_name)
    if isinstance(content, Placeholder):
        raise UserError(f"{path}: holds a whole object of {content.name}, not weights; save its state_dict() instead")
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights")
    return Checkpoint(content, tuple(sorted(placeholders)))


def _is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive; a UserError says if it is empty or cannot be read."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: is empty (0 bytes)")
        with path.open("rb") as file:  # given a path, zipfile would ignore missing access rights
            return zipfile.is_zipfile(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _check_archive(path: Path) -> str:
    """Check that the members of an archive are intact and uncompressed, and return the name of its pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            pickles = [member for member in members if member.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path}: is a zip archive but not a PyTorch checkpoint (it holds no data.pkl)")
            if any(name.endswith("/constants.pkl") for name in names):
                raise UserError(f"{path}: is a TorchScript program, which is never run; save its state_dict() instead")
            # torch.save does not compress, so a regular archive is never smaller than its content.
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
            if packed or sum(member.file_size for member in members) > path.stat().st_size:
                raise UserError(
                    f"{path}: refused, because it is compressed, or its content is larger than the file; "
                    "save its state_dict() again with torch.save"
                )
            if pickles[0].file_size > MAX_PICKLE_BYTES:
                raise UserError(
                    f"{path}: refused, because its data.pkl is larger than {MAX_PICKLE_BYTES // 2**20} MiB"
                )
            if damaged := archive.testzip():
                raise UserError(f"{path}: is damaged (wrong checksum of {damaged}); download the file again")
    except UserError:
        raise
    except _BROKEN as error:
        raise UserError(f"{path}: is a damaged zip archive ({_first_line(error)}); download the file again") from error
    return pickles[0].filename


def _read_closed(path: Path, pickle_name: str) -> tuple[Any, set[str]]:
    """Read a zip checkpoint without executing its pickle.

    Args:
        path: Checkpoint.
        pickle_name: Name of the pickle in the archive, `.../data.pkl`; the tensors are next to it in `data/`.

    Returns:
        Content, and the names of the objects that were not rebuilt.

    Raises:
        UserError: If the file is damaged, or was written on a machine with another byte order.
    """
    prefix = pickle_name.removesuffix("data.pkl")
    storages: dict[str, bytearray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{prefix}byteorder" in archive.namelist():
                order = archive.read(f"{prefix}byteorder").decode()
                if order != sys.byteorder:
                    raise ValueError(f"it was written on a {order}-endian machine")

            def load_storage(dtype: torch.dtype, key: str, numel: int) -> torch.Tensor:
                if key not in storages:
                    storages[key] = bytearray(archive.read(f"{prefix}data/{key}"))
                # torch refuses to look at an empty buffer; a storage shorter than `numel` it refuses by itself.
                return (
                    torch.frombuffer(storages[key], dtype=dtype, count=numel) if numel else torch.empty(0, dtype=dtype)
                )

            unpickler = TorchUnpickler(archive.read(pickle_name), load_storage)
            return unpickler.load(), unpickler.placeholders
    except _BROKEN as error:
        raise UserError(f"{path}: is not a readable PyTorch checkpoint ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
