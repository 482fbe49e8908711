"""Manifest of a run: settings, versions and the status of every item."""

from __future__ import annotations

import os
import platform
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from stedfm_hf.runs.errors import EXIT_DONE, EXIT_ITEMS_FAILED, UserError
from stedfm_hf.runs.files import FileStamp, read_json, write_json
from stedfm_hf.runs.secret_detection import without_secrets
from stedfm_hf.runs.storage import as_path, is_remote
from stedfm_hf.runs.wording import escaped

MANIFEST_FORMAT = 1
# First words of the commands whose folders hold results.
_OF_RESULTS = ("segment", "evaluate", "finetune", "pretrain", "index", "search", "cluster")
_PACKAGES = ("stedfm-hf", "torch", "transformers", "numpy")
# Start of an absolute path of any system, or of a home folder. pathlib would keep every part of a million paths.
_ABSOLUTE = re.compile(r"[/~]|\\\\|[A-Za-z]:[\\/]")
# The folders of an absolute path inside a sentence; not those of a URL, nor of a relative path.
_FOLDERS = re.compile(r"(?<![\w.~:/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\":,;]+[/\\])*(?=[^\s/\\])")


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """Status of one item.

    Attributes:
        state: `done`, `failed` or `skipped`.
        reason: Error of a failed item, reason of a skipped one, or note of an item that is done.
        size: Size of its file in bytes, if it is known.
        modified: Time of its last modification, in seconds since 1970 (UTC), if it is known.
    """

    state: Literal["done", "failed", "skipped"]
    reason: str | None = None
    size: int | None = None
    modified: int | None = None

    @property
    def stamp(self) -> FileStamp | None:
        """Stamp of the file, or None."""
        return None if self.size is None or self.modified is None else FileStamp(self.size, self.modified)

    def record(self) -> dict[str, Any]:
        """Return plain data to store, without an unknown stamp."""
        found = {"state": self.state, "reason": self.reason}
        return found | {"size": self.size, "modified": self.modified} if self.stamp else found


def status_of(
    state: Literal["done", "failed", "skipped"], reason: str | None = None, stamp: FileStamp | None = None
) -> ItemStatus:
    """Return the status of an item with its reason or note on one line, and the stamp of its file.

    Example:
        >>> status_of("failed", "the  file is empty").reason
        'the file is empty'
    """
    size, modified = stamp or (None, None)
    return ItemStatus(state, None if reason is None else _one_line(reason), size, modified)


@dataclass
class Manifest:
    """Settings of a run and the status of every item, written as JSON next to the output.

    Paths are relative and no folder outside the run is named, so that a manifest can be published with its output.

    Attributes:
        command: Name of the command, such as `embed`.
        settings: Arguments that affect the result. A run is resumed only if they agree.
        options: Other arguments (device, batch size, ...), for the record.
        model: Name of the model, or None.
        weights_sha256: SHA-256 of the weights, or None.
        seed: Random seed, or None.
        versions: Versions of this package, Python, torch, transformers and NumPy, and the system.
        started: Start of the first run (UTC, ISO 8601).
        ended: End of the last finished run (UTC, ISO 8601); None while it runs or after an interrupt.
        seconds: Working time in seconds, summed over resumed runs.
        items: Status by item; an item is a relative path, with the series if a file has more than one.

    Example:
        >>> manifest = Manifest("embed", settings={"pooling": "avg"}, model="flclab/stedfm-vit-small")
        >>> manifest.done("actin/cell_1.tif")
        >>> manifest.failed("actin/cell_2.tif", "the file is empty; copy it again")
        >>> manifest.counts()
        {'done': 1, 'failed': 1, 'skipped': 0}
        >>> manifest.exit_status
        1
    """

    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    weights_sha256: str | None = None
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=lambda: versions())
    started: str = field(default_factory=lambda: _now())
    ended: str | None = None
    seconds: float = 0.0
    items: dict[str, ItemStatus] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = {key: portable(value) for key, value in self.settings.items()}
        self.options = {key: portable(value) for key, value in self.options.items()}
        self.model = portable(self.model)
        self._clock_began = time.monotonic()
        self._seconds_before = self.seconds

    def done(self, item: str, note: str | None = None) -> None:
        """Record that an item is done, optionally with a note."""
        self.record(item, status_of("done", note))

    def failed(self, item: str, message: str | BaseException) -> None:
        """Record that an item failed, with its error on one line."""
        self.record(item, status_of("failed", str(message)))

    def skipped(self, item: str, reason: str) -> None:
        """Record that an item was skipped on purpose, with the reason."""
        self.record(item, status_of("skipped", reason))

    def record(self, item: str, status: ItemStatus) -> None:
        """Record the status of an item.

        Raises:
            ValueError: If the item is an absolute path.
        """
        if _is_absolute(item):
            raise ValueError(f"{item}: items are recorded relative to the input they were found under")
        self.items[item] = status

    def counts(self) -> dict[str, int]:
        """Return how many items are done, failed and skipped."""
        counted = Counter(status.state for status in self.items.values())
        return {state: counted[state] for state in ("done", "failed", "skipped")}

    def failures(self) -> dict[str, str]:
        """Return the error of every failed item."""
        return {item: status.reason or "" for item, status in self.items.items() if status.state == "failed"}

    @property
    def exit_status(self) -> int:
        """0 if nothing failed, else 1."""
        return EXIT_ITEMS_FAILED if self.counts()["failed"] else EXIT_DONE

    @property
    def rate(self) -> float | None:
        """Number of items per second of working time, or None if nothing was measured."""
        return self.counts()["done"] / self.seconds if self.seconds > 0 else None

    def finish(self) -> None:
        """Record the end of the run."""
        self.ended = _now()
        self.seconds = self._working_seconds()

    def resume_from(self, old: Manifest, *, has_overwrite: bool = False) -> None:
        """Resume an earlier run: keep its items that are done, its start and its working time.

        Failed and skipped items are not kept, so that they are processed again.

        Args:
            old: Manifest of the earlier run.
            has_overwrite: Whether the command has the option --overwrite, for the message.

        Raises:
            UserError: If the settings of the runs differ (`check_same_settings`).
        """
        check_same_settings(old, self, has_overwrite=has_overwrite)
        self.items = {item: status for item, status in old.items.items() if status.state == "done"} | self.items
        self.started = old.started
        self._seconds_before += old.seconds

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON, atomically."""
        self.seconds = self._working_seconds() if self.ended is None else self.seconds
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "items"}
        about = {"format": MANIFEST_FORMAT, **values, "counts": self.counts(), "rate": self.rate}
        write_json(path, about, {"items": ((item, status.record()) for item, status in self.items.items())})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read a manifest.

        Raises:
            UserError: If the file cannot be read, or is not a manifest of this version.
        """
        record = read_json(path)
        if not isinstance(record, dict) or record.get("format") != MANIFEST_FORMAT:
            raise UserError(f"{path}: is not a manifest of this version; delete it, or choose another output")
        values = {key: value for key, value in record.items() if key not in ("format", "counts", "rate")}
        try:
            items = {item: ItemStatus(**status) for item, status in values.pop("items").items()}
            return cls(**values, items=items)
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is a damaged manifest ({error}); delete it, or choose another output") from error

    def _working_seconds(self) -> float:
        return round(self._seconds_before + time.monotonic() - self._clock_began, 3)


def check_same_settings(old: Manifest, new: Manifest, *, has_overwrite: bool = False) -> None:
    """Refuse to mix the results of two runs with different settings.

    The command, the model, the SHA-256 of its weights, the seed and every setting are compared; the options and the
    versions are not.

    Args:
        old: Manifest of the earlier run.
        new: Manifest of this run.
        has_overwrite: Whether the command has the option --overwrite, for the message.

    Raises:
        UserError: If they differ; the message lists every difference with the old and the new value.

    Example:
        >>> try:
        ...     check_same_settings(Manifest("embed", {"pooling": "avg"}), Manifest("embed", {"pooling": "token"}))
        ... except UserError as error:
        ...     print(str(error).partition(";")[0])
        the output was made with other settings (pooling: 'avg' before, 'token' now)
    """
    differences = [
        f"{key}: {_difference(before, now, key)}"
        for before, now in ((_made_with(old), _made_with(new)), (old.settings, new.settings))
        for key in before | now
        if before.get(key, _MISSING) != now.get(key, _MISSING)
    ]
    if differences:
        raise UserError(
            f"the output was made with other settings ({'; '.join(differences)}); "
            f"use the old settings{', another output, or --overwrite' if has_overwrite else ' or another output'}"
        )


_MISSING = object()


def _made_with(manifest: Manifest) -> dict[str, Any]:
    return {key: getattr(manifest, key) for key in ("command", "model", "weights_sha256", "seed")}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> str:
    old, new = before.get(key), now.get(key)
    if isinstance(old, Mapping) and isinstance(new, Mapping):  # checksums of splits: name the split, not the checksums
        return f"{', '.join(each for each in dict.fromkeys((*old, *new)) if old.get(each) != new.get(each))} changed"
    return f"{_shown(before, key)} before, {_shown(now, key)} now"


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not set"


def manifest_path(output: str | os.PathLike[str], *, folder: bool | None = None) -> Path:
    """Return the path of the manifest of an output: inside a folder, or next to a file.

    Args:
        output: File or folder that the command writes.
        folder: Whether it is a folder; by default it is if it exists as one or has no suffix.

    Example:
        >>> manifest_path("emb.parquet").name, manifest_path("results").as_posix()
        ('emb.parquet.manifest.json', 'results/manifest.json')
    """
    path = as_path(output)
    if folder is None:
        folder = path.is_dir() or not path.suffix
    return path / "manifest.json" if folder else path.with_name(path.name + ".manifest.json")


def is_result(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds results of a command; images in it are not read as input.

    Example:
        >>> is_result("/nowhere")
        False
    """
    record = manifest_path(folder, folder=True)
    if not record.is_file():
        return False
    try:
        found = read_json(record)
    except UserError:
        return False
    return isinstance(found, dict) and str(found.get("command")).split(" ")[0] in _OF_RESULTS


def versions() -> dict[str, str]:
    """Return the versions of the packages, Python and the system."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def portable(value: Any) -> Any:
    """Convert a value to plain JSON data without folders outside the working directory, user names or passwords.

    Paths become relative to the working directory, or lose their folders; URLs lose user and query; tuples become
    lists, and other objects become text.

    Example:
        >>> portable({"model": Path("/home/ada/models/stedfm"), "tile_size": (224, 224)})
        {'model': 'stedfm', 'tile_size': [224, 224]}
        >>> portable("https://ada:secret@example.org/weights.zip?token=1")
        'https://example.org/weights.zip'
    """
    if isinstance(value, Mapping):
        return {str(key): portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [portable(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if is_remote(value):
        value = str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if url := re.fullmatch(r"([a-z][a-z0-9+]*://)(?:[^/@]*@)?([^?#]*).*", text, flags=re.IGNORECASE):
        return url[1] + url[2]
    return _relative(text) if _is_absolute(text) else text


def _is_absolute(text: str) -> bool:
    return _ABSOLUTE.match(text) is not None


def _relative(text: str) -> str:
    path = Path(text).expanduser()
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return PureWindowsPath(text).name if "\\" in text else path.name


def _one_line(text: str) -> str:
    """Put a message on one line, and remove the folders of absolute paths in it."""
    line = " ".join(text.split())
    # These two first: they may hold spaces, which end a path for the pattern.
    for folder in (str(Path.cwd()), str(Path.home())):
        if len(folder) > 3:
            line = line.replace(folder + os.sep, "")
    return escaped(without_secrets(_FOLDERS.sub("", line)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
