"""Paths of object stores and web servers (`s3://`, `gs://`, `hf://`, `memory://`, `https://`), through fsspec.

`as_path` is where a text becomes a path. A remote path is a `upath.UPath`, which has the methods of `pathlib.Path`, so
that annotations of both are `Path`. Objects are written by one upload of a complete local file, and read through a
local copy, so that no reader sees half a file and a connection that breaks off is tried again. Credentials come from
the environment of each process; a path holds none.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.secret_detection import without_secrets

T = TypeVar("T")
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
"""Packages that open the paths of a protocol; those of S3 and of the web are in the extra `storage`."""
STORES = ("s3", "s3a", "gs", "gcs", "memory", "abfs", "az")
"""Protocols of object stores, which an option for a local path refuses."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "s3a": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
}
"""Environment variables from which the libraries read credentials, by protocol."""
_LIBRARIES = {"botocore", "aiobotocore", "s3fs", "gcsfs", "google", "aiohttp", "fsspec", "httpx", "httpx2"}
"""Libraries whose errors are not always OSErrors."""
_LOST = frozenset(
    "ConnectionError HTTPClientError ClientConnectionError ClientPayloadError IncompleteRead TransportError"
    " FSTimeoutError".split()
)
"""Errors of these libraries after a connection failed."""
_PATIENT = {"s3", "s3a", "gs", "gcs"}
"""Protocols whose libraries repeat requests, with growing pauses."""
_ATTEMPTS = 4
PAUSE = 0.5
"""Time before the second attempt after a connection broke off, in seconds; it doubles with each attempt."""


def is_remote(path: object) -> bool:
    """Return whether a path or text names an object of a store or web server.

    Example:
        >>> is_remote("s3://bucket/images"), is_remote("images"), is_remote(Path("images"))
        (True, False, False)
    """
    if isinstance(path, str):
        return protocol_of(path) not in ("", "file")
    return hasattr(path, "protocol") and hasattr(path, "storage_options") and path.protocol not in ("", "file")


def protocol_of(path: object) -> str:
    """Return the protocol of a path in lower case, or "" for a local path.

    Example:
        >>> protocol_of("s3://bucket/images"), protocol_of("images")
        ('s3', '')
    """
    found = _URL.match(str(path))
    return found[1].lower() if found else ""


def as_path(path: str | os.PathLike[str]) -> Path:
    """Convert a text to a path: a `pathlib.Path`, or a `upath.UPath` for a URL; paths are returned unchanged.

    Args:
        path: Text or path.

    Raises:
        UserError: If the protocol is unknown, or a package for it is not installed.

    Example:
        >>> as_path("images/a.tif")
        PosixPath('images/a.tif')
        >>> as_path("memory://images/a.tif").name
        'a.tif'
    """
    if not isinstance(path, str) and is_remote(path):
        return cast(Path, path)
    if not is_remote(path):
        text = os.fspath(path)
        return Path(unquote(urlsplit(text).path)) if protocol_of(text) == "file" else Path(path)
    text = str(path)
    try:
        from upath import UPath

        # Without a cache of listings, a process sees what others have written.
        remote = UPath(text) if protocol_of(text) in ("http", "https") else UPath(text, use_listings_cache=False)
        _ = remote.fs
    except ImportError as error:
        raise _missing_package(text) from error
    except ValueError as error:
        raise UserError(f"{text}: the protocol {protocol_of(text)}:// is unknown; use s3, gs, hf or https") from error
    return cast(Path, remote)


def as_list(inputs: Any) -> list[Any]:
    """Return one input or several as a list, unchanged; a path is one input.

    Example:
        >>> as_list("images"), as_list(["a", "b"])
        (['images'], ['a', 'b'])
    """
    return [inputs] if isinstance(inputs, str | os.PathLike) or is_remote(inputs) else list(inputs)


def real_path(path: str | os.PathLike[str]) -> str:
    """Return the text by which two paths are compared: links are resolved, and a URL is kept."""
    return str(path) if is_remote(path) else os.path.realpath(path)


def name_of(path: Path) -> str:
    """Return the name of a file, without the query of a URL.

    Example:
        >>> name_of(as_path("images/a.tif"))
        'a.tif'
    """
    return unquote(urlsplit(str(path)).path).rpartition("/")[2] if is_remote(path) else path.name


@contextmanager
def storage_errors(path: object) -> Iterator[None]:
    """Convert the errors of a store to one sentence; errors of local paths are kept.

    Args:
        path: Path that is used in the block.

    Raises:
        UserError: If the store refuses access, cannot be reached, or has no such bucket or object.
    """
    try:
        yield
    except Exception as error:
        if not is_remote(path) or not _is_of_store(error):
            raise
        raise UserError(f"{path}: {_explain(error, protocol_of(path))}") from error


def _is_of_store(error: Exception) -> bool:
    kinds = (OSError, ImportError, NotImplementedError, TimeoutError)
    return isinstance(error, kinds) or type(error).__module__.partition(".")[0] in _LIBRARIES


def _explain(error: Exception, protocol: str) -> str:
    """Return what is wrong with a path and how to fix it."""
    name, text = type(error).__name__, " ".join(str(error).split())
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, ImportError):
        return str(_missing_package(f"{protocol}://")).partition(": ")[2]
    where = f"set {_CREDENTIALS.get(protocol, 'them')} in the environment"
    if name in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"):
        return f"no credentials were found; {where}"
    if isinstance(error, PermissionError) or status in (401, 403) or "SignatureDoesNotMatch" in text:
        return f"access was refused; check the credentials and their rights, and {where}"
    if isinstance(error, FileNotFoundError) or status == 404:
        missing = is_missing_bucket(error)
        return "the bucket does not exist; check its name" if missing else "no such file or folder; check the path"
    if isinstance(error, NotImplementedError) or name == "ReadOnlyError":
        return "cannot be written; choose another output"
    if _is_of_connection(error):
        return f"the connection failed ({name}); check the network, and run the same command again to resume"
    return f"cannot be used ({name}: {without_secrets(text)[:200]}); check the path and the store"


def is_missing_bucket(error: Exception) -> bool:
    """Return whether an error says that there is no such bucket, rather than no such object in it."""
    return "bucket does not exist" in str(error).lower()


def _is_of_connection(error: Exception) -> bool:
    names = {each.__name__ for each in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(names & _LOST)


def _missing_package(text: str) -> UserError:
    protocol = protocol_of(text)
    package = _PACKAGES.get(protocol, protocol)
    install = f"pip install {package}" if package == "gcsfs" else 'pip install "stedfm-hf[storage]"'
    return UserError(f"{text}: needs {package} and universal-pathlib, which are not installed; {install}")


def with_retries(path: Path, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function again after a connection broke off, up to three times, where the library does not do so.

    Args:
        path: Path that the function uses, for the message.
        function: Function.
        arguments: Arguments of the function.

    Raises:
        UserError: If the store cannot be used.
    """
    attempts = 1 if protocol_of(path) in _PATIENT else _ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            with storage_errors(path):
                return function(*arguments)
        except UserError as error:
            cause = error.__cause__
            if attempt == attempts or not (isinstance(cause, Exception) and _is_of_connection(cause)):
                raise
            time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def system_of(path: Path) -> tuple[Any, str]:
    """Return the fsspec file system of a remote path, and its name there."""
    remote: Any = path
    return remote.fs, remote.path


@contextmanager
def uploaded(path: Path) -> Iterator[Path]:
    """Yield a temporary local file, and upload it to a remote path in one step when the block ends without an error.

    Raises:
        UserError: If the upload fails; an existing object is then kept.
    """
    with tempfile.TemporaryDirectory(prefix="stedfm-") as work:
        temporary = Path(work, name_of(path))
        yield temporary
        upload(temporary, path)


def upload(local: Path, path: Path) -> None:
    """Upload a file, or the files of a folder, to a remote path; each file appears complete or not at all.

    Raises:
        UserError: If it fails.
    """
    for file in sorted(local.rglob("*")) if local.is_dir() else [local]:
        if file.is_file():
            target = path if file == local else path.joinpath(*file.relative_to(local).parts)
            system, name = system_of(target)
            with_retries(target, system.put_file, str(file), name)


def remove(path: Path) -> None:
    """Remove a remote file or folder if it exists."""
    system, name = system_of(path)
    with storage_errors(path):
        try:
            system.rm(name, recursive=True)
        except FileNotFoundError:
            pass


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Return the size of a remote file in bytes and the time of its last change, in seconds since 1970 (0: unknown).

    Those of a folder are the size of all files in it, and their last change. None if there is no such file.

    Raises:
        UserError: If the store cannot be used.
    """
    system, name = system_of(path)
    with storage_errors(path):
        try:
            found = [system.info(name)]
        except FileNotFoundError:
            return None
        if found[0]["type"] == "directory":
            found = list(system.find(name, detail=True).values())
    return sum(each.get("size") or 0 for each in found), max(map(_changed, found), default=0)


def _changed(info: dict[str, Any]) -> int:
    """Return the time of the last change of an object; file systems give it under different names."""
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        if (time_ := info.get(key)) is not None:
            return (
                int(time_.timestamp() if isinstance(time_, datetime) else time_) if not isinstance(time_, str) else 0
            )
    return 0


def check_writable(path: Path) -> None:
    """Refuse a remote output whose bucket does not exist or refuses access, before work begins.

    Raises:
        UserError: If the output cannot be written.
    """
    if protocol_of(path) in ("http", "https"):
        raise UserError(f"{path}: a web server cannot be written; choose another output, such as s3://BUCKET/NAME")
    if is_remote(path):
        check_bucket(path)


def check_bucket(path: Path) -> None:
    """Check that the bucket of a remote path exists and can be listed; the path need not exist.

    Raises:
        UserError: If the bucket does not exist, or the store refuses access or cannot be reached.
    """
    system, name = system_of(path)
    with storage_errors(path):
        try:
            system.ls(name)
        except FileNotFoundError as error:
            if is_missing_bucket(error):
                raise
