"""Cached downloads with progress, resuming and checks."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
import zipfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2
from filelock import FileLock
from huggingface_hub import get_session
from huggingface_hub.errors import OfflineModeIsEnabled

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import read_json, sha256_file, write_json
from stedfm_hf.runs.progress import Progress

__all__ = ["cache_folder", "fetch", "is_url", "public_url"]

ATTEMPTS = 6
CONNECT_ATTEMPTS = 3
_CHUNK_BYTES = 2**16
_MEGABYTE = 10**6
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class _Interrupted(Exception):
    """Transfer that broke off and can be resumed by another attempt."""


@dataclass
class _Record:
    """Record of a download, written at its first success and compared later."""

    url: str
    size: int
    sha256: str
    downloaded: str


def cache_folder() -> Path:
    """Return the folder of downloads and converted weights: `STEDFM_CACHE`, or `stedfm` in the user's cache folder.

    The user's cache folder is `XDG_CACHE_HOME` or `~/.cache` on every system, as for the Hugging Face libraries.
    """
    if folder := os.environ.get("STEDFM_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stedfm"


def is_url(source: str) -> bool:
    """Return whether `source` is an http or https address."""
    return source.lower().startswith(("http://", "https://"))


def public_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def fetch(url: str, *, cache: Path | None = None, expected_sha256: str | None = None) -> Path:
    """Download a file once, and return its local path.

    An interrupted transfer is resumed, also by a later call, if the server still has the same file (ETag or
    Last-Modified). The checksums inside zip archives are verified. The SHA-256 is recorded next to the file at the
    first download, and verified whenever the file is used or downloaded again.

    Args:
        url: Address of the file, http or https.
        cache: Folder of the cache; by default `cache_folder()`.
        expected_sha256: Expected SHA-256 of the file, if it is known.

    Returns:
        Path of the file in the cache. Do not change it.

    Raises:
        UserError: If the address is wrong or cannot be reached, or the file is damaged or has changed.
    """
    if not is_url(url):
        raise UserError(f"{url}: is not an http or https address")
    folder = (cache or cache_folder()) / "downloads" / sha256(url.encode()).hexdigest()[:16]
    path = folder / _file_name(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            return _fetch(url, path, expected_sha256)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}); set STEDFM_CACHE to another folder") from error


def _file_name(url: str) -> str:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).strip(".")[-100:] or "file"


def _fetch(url: str, path: Path, expected_sha256: str | None) -> Path:
    """Return the file in the cache; download, check and record it if it is not there. The caller holds the lock.

    A download that fails a check is deleted, so that the next call starts from its first byte. An interrupted transfer
    is kept, and the next call resumes it.
    """
    record_path = path.with_name("record.json")
    record = _read_record(record_path)
    expected = expected_sha256 or (record.sha256 if record else None)
    if path.exists() and record:
        if sha256_file(path) != expected:
            raise UserError(f"{path}: has changed since it was downloaded; delete it to download it again")
        return path

    part = _download(url, path)
    try:
        _check_content(url, part)
        actual = sha256_file(part)
        if expected and actual != expected:
            fix = f"if the change is intended, delete {record_path} and try again" if record else "do not use it"
            raise UserError(f"{public_url(url)}: has changed (sha256 {actual[:12]}…, not {expected[:12]}…); {fix}")
    except UserError:
        _discard(part)
        raise
    if record is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(record_path, asdict(_Record(public_url(url), part.stat().st_size, actual, now)))
    os.replace(part, path)
    _discard(part)
    return path


def _read_record(path: Path) -> _Record | None:
    try:
        return _Record(**read_json(path)) if path.exists() else None
    except TypeError as error:
        raise UserError(f"{path}: is not a record of a download; delete it to download again") from error


def _check_content(url: str, part: Path) -> None:
    """Raise a UserError if a zip archive is damaged, or the address ends in `.zip` and the file is not an archive.

    Files of other types are not checked.
    """
    is_zip = zipfile.is_zipfile(part)
    if urlsplit(url).path.lower().endswith(".zip") and not is_zip:
        raise UserError(f"{public_url(url)}: the server did not send a zip archive; open the address in a browser")
    if is_zip:
        try:
            with zipfile.ZipFile(part) as archive:
                damaged = archive.testzip()
        # zipfile raises NotImplementedError for a compression that it does not know, RuntimeError for a password.
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
            raise UserError(f"{public_url(url)}: the download cannot be unpacked ({error}); try again") from error
        if damaged:
            raise UserError(f"{public_url(url)}: the download is damaged (checksum of {damaged}); try again")


def _download(url: str, path: Path) -> Path:
    """Transfer the file to `<name>.part`, and return this path.

    After a broken transfer, the next request resumes it. There are at most `ATTEMPTS` requests with increasing pauses
    between them, or `CONNECT_ATTEMPTS` if the server cannot be reached.

    Raises:
        UserError: If the last request fails too, or an error cannot be fixed by another request.
    """
    part = path.with_name(path.name + ".part")
    last_error, attempt, limit = "", 0, ATTEMPTS
    while attempt < limit:
        if attempt:
            time.sleep(2.0 ** (attempt - 2))
        attempt += 1
        try:
            _request(url, part)
            return part
        except _Interrupted as error:
            last_error = str(error)
        # These two are also a TransportError and a TimeoutException, so this clause must come first.
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # Mostly there is no network: do not let the user wait for long.
            last_error, limit = str(error) or type(error).__name__, CONNECT_ATTEMPTS
        except httpx2.TimeoutException:
            last_error = "the server did not answer in time"
        except httpx2.TransportError as error:
            last_error = str(error) or type(error).__name__
        except OfflineModeIsEnabled as error:
            raise UserError(f"{public_url(url)}: cannot be downloaded while HF_HUB_OFFLINE is set") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UserError(f"{public_url(url)}: cannot be downloaded ({error})") from error
    raise UserError(
        f"{public_url(url)}: cannot be downloaded after {attempt} attempts ({last_error}); try again later (the "
        "transfer resumes), or download it with a browser and give the path of the file"
    )


def _request(url: str, part: Path) -> None:
    """Send one GET request that starts the transfer, or resumes it if the server still has the same file.

    The version of the file (`_version`) is kept in `<name>.part.version`. Without it, or if the server has another
    version now, the transfer starts from the first byte.

    Raises:
        _Interrupted: If another request may succeed.
        UserError: If the server refuses the request, or the disk has no space.
    """
    version_path = part.with_name(part.name + ".version")
    version_before = version_path.read_text(encoding="utf-8") if version_path.exists() else ""
    offset = part.stat().st_size if version_before and part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version_before}
    with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT, follow_redirects=True) as response:
        version_now = _version(response)
        start, total = _span(response)
        if response.status_code == 206 and (start != offset or version_now != version_before):
            _discard(part)  # a different file, from a server that ignores If-Range
            raise _Interrupted("the file on the server changed")
        if response.status_code == 416:
            _discard(part)
            raise _Interrupted("the server has less than what was downloaded before")
        if response.status_code in _TRY_AGAIN:
            raise _Interrupted(f"HTTP status {response.status_code}")
        if response.status_code not in (200, 206):
            raise UserError(
                f"{public_url(url)}: cannot be downloaded (HTTP status {response.status_code} "
                f"{response.reason_phrase}); check the address"
            )
        if response.status_code == 200:
            offset = 0
            version_path.write_text(version_now, encoding="utf-8")
        if total is not None and shutil.disk_usage(part.parent).free < total - offset:
            raise UserError(
                f"{part.parent}: has no space for {total / _MEGABYTE:.0f} MB; set STEDFM_CACHE to another folder"
            )
        _receive(response, part, offset, total)


def _receive(response: httpx2.Response, part: Path, offset: int, total: int | None) -> None:
    """Write the body of a response to the file, from byte `offset` on, and show the progress.

    Args:
        response: Open response.
        part: File to append to; with offset 0 it is overwritten.
        offset: Number of bytes that the file holds and the response skips.
        total: Size of the whole file in bytes; None: unknown, so that a broken transfer is not detected.

    Raises:
        _Interrupted: If fewer or more bytes arrive than the server promised.
    """
    received = offset
    megabytes = math.ceil(total / _MEGABYTE) if total is not None else None
    with (
        part.open("ab" if offset else "wb") as file,
        Progress(megabytes, description="download", unit="MB", done=offset // _MEGABYTE) as progress,
    ):
        for chunk in response.iter_bytes(_CHUNK_BYTES):
            file.write(chunk)
            received += len(chunk)
            done = megabytes if received == total and megabytes is not None else received // _MEGABYTE
            progress.update(done - progress.count)
    if total is not None and received != total:
        raise _Interrupted(f"{received} of {total} bytes arrived")


def _version(response: httpx2.Response) -> str:
    """Return the version of the file for If-Range: a strong ETag, or the date of the last modification."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _span(response: httpx2.Response) -> tuple[int, int | None]:
    """Return the first byte of the response, and the size of the whole file if the server sends it."""
    if match := re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")):
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".version").unlink(missing_ok=True)
