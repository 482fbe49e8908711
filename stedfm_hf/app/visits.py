"""Visits and their files: every visitor has a folder, which is deleted when the visit ends.

All folders and all uploads are inside one temporary directory, which is deleted when the server ends. Gradio stores an
upload as `<SHA-256 of the content>/<name>`, so that visitors who upload the same file share it: it is deleted with the
last of their visits.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stedfm_hf.runs import UserError

KEPT_RESULTS = 4
"""Number of results of each kind that are kept: the browser may still load the files of earlier ones."""
STRAY_SECONDS = 30.0
"""Age from which an empty temporary file of the server is deleted."""


class Visit:
    """Visit of one browser tab.

    Attributes:
        folder: Folder of its files; its name cannot be guessed.
        images: Opened images by slot.
        tab: Title of the open tab; None before it is known.
        has_left: Whether the visit has ended.
        last_used: Time of the last request, in seconds of `time.monotonic`.
    """

    def __init__(self, parent: Path, release: Callable[[Path, int], None] = lambda upload, modified: None) -> None:
        self.folder = parent / f"visit-{secrets.token_hex(16)}"
        self.folder.mkdir()
        self.images: dict[str, Any] = {}
        self.tab: str | None = None
        self.has_left = False
        self.last_used = time.monotonic()
        self._release = release
        self._uploads: dict[Path, tuple[Path, int]] = {}
        self._results: dict[str, deque[Path]] = defaultdict(deque)
        self._lock = threading.Lock()

    @contextmanager
    def adopt(self, upload: Path, slot: str) -> Iterator[Path]:
        """Link or copy an uploaded file into the folder; it replaces the earlier file if the block ends without error.

        Args:
            upload: File in the upload folder of the server.
            slot: Name of the image.

        Yields:
            File in the folder of the visit; deleted if the block raises.

        Raises:
            UserError: If the file has been deleted.
        """
        with self.new_folder(slot, kept=1) as folder:
            target = folder / upload.name
            try:
                modified = upload.stat().st_mtime_ns
                try:
                    os.link(upload, target)
                except OSError:
                    shutil.copy2(upload, target)
            except FileNotFoundError as error:
                raise UserError(f"{upload.name}: the upload has been deleted; upload the file again") from error
            with self._lock:
                self._uploads[folder] = (upload, modified)
            yield target
        self._release_deleted()

    def _release_deleted(self) -> None:
        """Delete the uploads whose copies in the folder have been deleted."""
        with self._lock:
            deleted = [folder for folder in self._uploads if not folder.exists()]
            released = [self._uploads.pop(folder) for folder in deleted]
            in_use = {upload for upload, _ in self._uploads.values()}
        for upload, modified in released:
            if upload not in in_use:
                self._release(upload, modified)

    def uploads(self) -> dict[Path, int]:
        """Return the uploads of the visit with their times of modification, in ns."""
        with self._lock:
            return dict(self._uploads.values())

    @contextmanager
    def new_folder(self, kind: str, kept: int = KEPT_RESULTS) -> Iterator[Path]:
        """Make a folder for a result; of every kind, only the last ones are kept.

        Args:
            kind: Name of the result, which begins the name of the folder.
            kept: Number of folders of this kind that are kept.

        Yields:
            The folder; deleted if the block raises, or if the visit ended meanwhile.
        """
        folder = self.folder / f"{kind}-{secrets.token_hex(8)}"
        try:
            folder.mkdir()
        except FileNotFoundError as error:
            raise UserError("the visit has ended; reload the page") from error
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            self._release_deleted()
            raise
        with self._lock:
            folders = self._results[kind]
            folders.append(folder)
            old = [folders.popleft() for _ in range(len(folders) - kept)]
        for each in old:
            shutil.rmtree(each, ignore_errors=True)
        if self.has_left:
            shutil.rmtree(self.folder, ignore_errors=True)


class Visits:
    """All visits of a server, in one temporary directory.

    Args:
        max_idle: Time without a request after which a visit ends, in seconds.

    Attributes:
        folder: The directory; the only place where the app writes.
        is_closing: Event that is set when the server ends.
    """

    def __init__(self, max_idle: float) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="stedfm-app-", ignore_cleanup_errors=True)
        self.folder = Path(self._directory.name).resolve()
        self._max_idle, self._lock = max_idle, threading.Lock()
        self._visits: dict[str, Visit] = {}
        self.is_closing = threading.Event()

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, session: str) -> Visit:
        """Return the visit of a session; a session without one gets a new one.

        Args:
            session: Id of the session, which the browser chose.
        """
        with self._lock:
            if session not in self._visits:
                self._visits[session] = Visit(self.folder, self._release)
            visit = self._visits[session]
            visit.last_used = time.monotonic()
            return visit

    def end(self, session: str) -> None:
        """End the visit of a session, and delete its files.

        Args:
            session: Id of the session; nothing happens if it has no visit.
        """
        with self._lock:
            visit = self._visits.pop(session, None)
            if visit is None:
                return
        visit.has_left = True
        visit.images.clear()
        for upload, modified in visit.uploads().items():
            self._release(upload, modified)
        shutil.rmtree(visit.folder, ignore_errors=True)

    def _release(self, upload: Path, modified: int) -> None:
        """Delete an upload that no visit uses."""
        with self._lock:
            in_use = {each for visit in self._visits.values() for each in visit.uploads()}
            # A newer file was uploaded by another visitor, whose request has not been processed yet.
            is_ours = upload.parent.parent == self.folder
            if is_ours and upload not in in_use and _modified(upload) == modified:
                shutil.rmtree(upload.parent, ignore_errors=True)

    def sweep(self) -> None:
        """End the visits that are idle for too long, and delete files that belong to no visit."""
        now = time.monotonic()
        with self._lock:
            idle = [session for session, visit in self._visits.items() if now - visit.last_used > self._max_idle]
        for session in idle:
            self.end(session)
        with self._lock:
            in_use = {upload.parent for visit in self._visits.values() for upload in visit.uploads()}
            in_use |= {visit.folder for visit in self._visits.values()}
        for path in self.folder.iterdir():
            if path in in_use or path.name.startswith("app-"):
                continue
            limit = STRAY_SECONDS if _is_empty(path) else max(self._max_idle, STRAY_SECONDS)
            if time.time() - (_modified(path) or 0) / 1e9 > limit:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def start_sweeping(self, interval: float = 15.0) -> None:
        """Call `sweep` at intervals, in a thread that ends with `close`.

        Args:
            interval: Interval, in seconds.
        """
        threading.Thread(target=self._sweep_at_intervals, args=(interval,), daemon=True).start()

    def _sweep_at_intervals(self, interval: float) -> None:
        while not self.is_closing.wait(interval):
            self.sweep()

    def close(self) -> None:
        """End all visits, and delete the directory."""
        self.is_closing.set()
        for session in list(self._visits):
            self.end(session)
        self._directory.cleanup()
        # A computation that ends later may write once more; its thread ends with the process.
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)


def without_paths(folder: Path) -> Callable[[str], str]:
    """Return a function that removes the paths of the server from a message.

    Args:
        folder: Directory of the visits.

    Example:
        >>> without_paths(Path("/tmp/app"))("/tmp/app/visit-1/image/a.tif: truncated")
        'a.tif: truncated'
    """

    def shorten(text: str) -> str:
        start = text.find(str(folder))
        while start >= 0:
            end = text.find(":", start)
            end = len(text) if end < 0 else end
            text = text[:start] + text[start:end].rpartition("/")[2] + text[end:]
            start = text.find(str(folder))
        return text

    return shorten


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _is_empty(path: Path) -> bool:
    try:
        return not any(path.iterdir()) if path.is_dir() else path.stat().st_size == 0
    except OSError:
        return False
