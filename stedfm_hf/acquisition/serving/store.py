"""Finders of the clients on disk: every change is one rename, so that a killed server loses no finder.

`STATE/clients/<client>/<finder>/` holds `about.json`, the annotated patches of each image in
`patches/0001.safetensors`, and the finder in `fit-0001/` with the files of `stedfm finder fit`. The numbers count the
annotated images.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from stedfm_hf.acquisition.examples import Examples
from stedfm_hf.acquisition.finder_files import StoredFinder, load_finder
from stedfm_hf.acquisition.serving.errors import RequestError
from stedfm_hf.acquisition.serving.messages import FinderInfo
from stedfm_hf.acquisition.serving.tokens import client_of
from stedfm_hf.runs import UserError, atomic_path, read_json, write_json
from stedfm_hf.runs.files import remove_path

ABOUT, PATCHES, FIT = "about.json", "patches", "fit-"
COLUMNS = ("tokens", "labels", "objects", "sources")
MOST_CLIENTS = 1000
"""Largest number of clients that got a token from the server."""
UNUSED_S = 24 * 3600.0
"""Time after which a client without a finder is forgotten at the next start, in seconds."""
CACHED = 16
"""Number of finders that are kept in memory."""
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class About:
    """Properties of a finder that never change.

    Attributes:
        method: Method.
        classes: Names of the classes.
        rotations: Whether images are also used rotated.
    """

    method: str
    classes: tuple[str, ...]
    rotations: bool


class Store:
    """Finders of all clients.

    Args:
        root: Folder of the state; it is made, and what a killed server left there is removed.

    Raises:
        UserError: If the folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self._clients = root / "clients"
        self._cache: OrderedDict[Path, StoredFinder] = OrderedDict()
        self._lock = threading.RLock()  # one thread changes the finders, and others list them
        try:
            self._clients.mkdir(parents=True, exist_ok=True)
            for client in list(self._clients.iterdir()):
                if client.is_dir():
                    self._clean(client)
        except OSError as error:
            raise UserError(f"--state {root}: cannot be written ({error.strerror}); choose another folder") from error

    def new_client(self) -> str:
        """Make a client, and return its token, which is stored nowhere.

        Raises:
            RequestError: If there are too many clients.
        """
        if sum(1 for _ in self._clients.iterdir()) >= MOST_CLIENTS:
            raise RequestError(
                409, f"the server has {MOST_CLIENTS:,} clients; keep the token of a client and send it again"
            )
        token = secrets.token_urlsafe(32)
        (self._clients / client_of(token)).mkdir()
        return token

    def knows(self, client: str) -> bool:
        """Return whether a client has a folder."""
        return bool(client) and (self._clients / client).is_dir()

    def finders(self, client: str) -> list[FinderInfo]:
        """Return the finders of a client, sorted by id."""
        with self._lock:
            return [self.info(client, name) for name in self._names(client)]

    def count(self, client: str) -> int:
        """Return the number of finders of a client."""
        return len(self._names(client))

    def info(self, client: str, finder: str) -> FinderInfo:
        """Describe a finder.

        Raises:
            RequestError: If the client has no such finder.
        """
        with self._lock:
            fit = self._fit(self._folder(client, finder))
            stored = self._load(fit)
        found, record = stored.finder, stored.record
        numbers = found.classes, found.min_scores, found.quantity, _number(fit), record["patches"], stored.warning
        return FinderInfo(finder, found.method, *numbers)

    def load(self, client: str, finder: str) -> StoredFinder:
        """Return a finder.

        Raises:
            RequestError: If the client has no such finder, or its files are damaged.
        """
        with self._lock:
            return self._load(self._fit(self._folder(client, finder)))

    def about(self, client: str, finder: str) -> About:
        """Return the properties of a finder that never change."""
        record = read_json(self._folder(client, finder) / ABOUT)
        return About(record["method"], tuple(record["classes"]), record["rotations"])

    def examples(self, client: str, finder: str) -> list[Examples]:
        """Return the annotated patches of every image of a finder."""
        folder, classes = self._folder(client, finder), self.about(client, finder).classes
        count = _number(self._fit(folder))
        files = (folder / PATCHES / f"{number:04d}.safetensors" for number in range(1, count + 1))
        return [Examples(classes, **load_file(file)) for file in files]

    def create(self, client: str, about: About, examples: Examples, stored: StoredFinder) -> str:
        """Store a new finder.

        Args:
            client: Id of the client.
            about: Properties of the finder.
            examples: Annotated patches of its first image.
            stored: Finder.

        Returns:
            Id of the finder.
        """
        finder = secrets.token_hex(8)
        parent = self._clients / client
        parent.mkdir(exist_ok=True)
        temporary = parent / f".{finder}"
        try:
            write_json(temporary / ABOUT, asdict(about))
            _save_examples(temporary / PATCHES / "0001.safetensors", examples)
            _save_finder(temporary / f"{FIT}0001", stored)
            temporary.rename(parent / finder)
        finally:
            remove_path(temporary)
        return finder

    def add(self, client: str, finder: str, examples: Examples, stored: StoredFinder) -> None:
        """Store the patches of another image of a finder, and the finder that was fitted to all of them.

        Args:
            client: Id of the client.
            finder: Id of the finder.
            examples: Annotated patches of the image.
            stored: Finder.
        """
        folder = self._folder(client, finder)
        before = self._fit(folder)
        number = f"{_number(before) + 1:04d}"
        _save_examples(folder / PATCHES / f"{number}.safetensors", examples)
        temporary = folder / f".{FIT}{number}"
        remove_path(temporary)
        _save_finder(temporary, stored)
        with self._lock:
            temporary.rename(folder / f"{FIT}{number}")  # from here on, this is the finder
            remove_path(before)

    def delete(self, client: str, finder: str) -> None:
        """Delete a finder.

        Raises:
            RequestError: If the client has no such finder.
        """
        with self._lock:
            folder = self._folder(client, finder)
            deleted = folder.with_name(f".{finder}")
            folder.rename(deleted)
        remove_path(deleted)

    def _names(self, client: str) -> list[str]:
        folder = self._clients / client
        return sorted(each.name for each in folder.iterdir() if _ID.fullmatch(each.name)) if self.knows(client) else []

    def _folder(self, client: str, finder: str) -> Path:
        folder = self._clients / client / finder
        if not client or not _ID.fullmatch(finder) or not folder.is_dir():
            raise RequestError(404, "this client has no such finder; list its finders with GET /finders")
        return folder

    def _fit(self, folder: Path) -> Path:
        """Return the folder of the last fit."""
        found = [each for each in folder.iterdir() if each.name.startswith(FIT)]
        if not found:
            raise RequestError(409, "the files of the finder are damaged; delete it, and make it again")
        return max(found, key=_number)

    def _load(self, fit: Path) -> StoredFinder:
        if fit not in self._cache:
            try:
                self._cache[fit] = load_finder(fit)
            except UserError as error:
                raise RequestError(409, "the files of the finder are damaged; delete it, and make it again") from error
        self._cache.move_to_end(fit)
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return self._cache[fit]

    def _clean(self, client: Path) -> None:
        """Remove what a killed server left: incomplete and deleted finders, older fits, and unused clients."""
        for folder in list(client.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                remove_path(folder)
                continue
            fits = sorted((each for each in folder.iterdir() if each.name.startswith(FIT)), key=_number)
            for each in [*folder.glob(".*"), *fits[:-1]]:
                remove_path(each)
            for file in (folder / PATCHES).glob("*"):
                if not fits or file.name.startswith(".") or int(file.stem) > _number(fits[-1]):
                    file.unlink()
        if not any(client.iterdir()) and time.time() - client.stat().st_mtime > UNUSED_S:
            client.rmdir()


def _number(fit: Path) -> int:
    return int(fit.name.removeprefix(FIT))


def _save_finder(folder: Path, stored: StoredFinder) -> None:
    folder.mkdir(parents=True)
    stored.save(folder)


def _save_examples(file: Path, examples: Examples) -> None:
    arrays: dict[str, Any] = {name: np.ascontiguousarray(getattr(examples, name)) for name in COLUMNS}
    with atomic_path(file) as temporary:
        save_file(arrays, temporary)
