"""The record of a run: what it was made with, what became of every item, and whether it may be resumed."""

from __future__ import annotations

import os
import platform
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from stedfm_hf.runs.errors import EXIT_DONE, EXIT_ITEMS_FAILED, UserError
from stedfm_hf.runs.files import FileStamp, read_json, write_json

MANIFEST_FORMAT = 1
_OF_RESULTS = ("segment", "evaluate", "finetune", "pretrain")  # first words of verbs
_PACKAGES = ("stedfm-hf", "torch", "transformers", "numpy")
# The folders of an absolute path inside a sentence; not those of a URL, nor of a relative path.
_FOLDERS = re.compile(r"(?<![\w.~:/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\":,;]+[/\\])*(?=[^\s/\\])")


@dataclass(frozen=True)
class ItemStatus:
    """What became of one item: `done`, `failed` (the reason is the error) or `skipped` (the reason says why).

    Of an item that is done the reason, if there is one, is a note; `size` and `modified` are the stamp of the file it
    was made from, where that is known.
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
        """Plain data to store, without a stamp that is not known: most items are made from no file of their own."""
        return asdict(self) if self.stamp else {"state": self.state, "reason": self.reason}


@dataclass
class Manifest:
    """What a run was made with and the status of every item; written as JSON beside the output.

    Paths in it are relative and no folder outside the run is named: a manifest can be published with its output.

    Attributes:
        command: The command, such as `embed`.
        settings: The arguments that decide the result. A run is resumed only if they agree.
        options: The other arguments (device, batch size, ...), for the record.
        model: Name of the model, or None.
        weights_sha256: SHA-256 of the weights, or None.
        seed: Seed of everything random, or None.
        versions: Of this package, Python, torch, transformers and NumPy, and the system.
        started: Begin of the first run, UTC, ISO 8601.
        ended: End of the last run that came to its end; None while it runs or when it was cut off.
        seconds: Working time, summed over resumed runs.
        items: ItemStatus by item; an item is a relative path, with its series where a file has several.
        stamps: Of the files that items are made from, for those that are done next; not saved by itself.

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
        self.stamps: Mapping[str, FileStamp] = {}
        self._clock_began = time.monotonic()
        self._seconds_before = self.seconds

    def done(self, item: str, note: str | None = None) -> None:
        """Record that an item is in the output, with a note where there is something to say."""
        stamp = self.stamps.get(item, (None, None))
        self._record(item, ItemStatus("done", None if note is None else _one_line(note), *stamp))

    def failed(self, item: str, message: str | BaseException) -> None:
        """Record that an item could not be done, with the one-line error."""
        self._record(item, ItemStatus("failed", _one_line(str(message))))

    def skipped(self, item: str, reason: str) -> None:
        """Record that an item was left out on purpose, with the reason."""
        self._record(item, ItemStatus("skipped", _one_line(reason)))

    def _record(self, item: str, status: ItemStatus) -> None:
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
        """Items done per second of working time, or None before anything was measured."""
        return self.counts()["done"] / self.seconds if self.seconds > 0 else None

    def finish(self) -> None:
        """Record the end of the run."""
        self.ended = _now()
        self.seconds = self._working_seconds()

    def resume_from(self, old: Manifest) -> None:
        """Go on where `old` stopped: take its items that are done, its first start and its working time.

        Failed and skipped items are forgotten, so that they are tried again.

        Raises:
            UserError: The runs differ in what decides the result (`check_same_settings`).
        """
        check_same_settings(old, self)
        self.items = {item: status for item, status in old.items.items() if status.state == "done"} | self.items
        self.started = old.started
        self._seconds_before += old.seconds

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON, atomically."""
        self.seconds = self._working_seconds() if self.ended is None else self.seconds
        items = {item: status.record() for item, status in self.items.items()}
        values = {**asdict(self), "items": items, "counts": self.counts(), "rate": self.rate}
        write_json(path, {"format": MANIFEST_FORMAT, **values})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read a manifest.

        Raises:
            UserError: The file cannot be read, or is not a manifest this version understands.
        """
        record = read_json(path)
        if not isinstance(record, dict) or record.get("format") != MANIFEST_FORMAT:
            raise UserError(f"{path}: is no manifest of this version; delete it, or choose another output")
        values = {key: value for key, value in record.items() if key not in ("format", "counts", "rate")}
        try:
            items = {item: ItemStatus(**status) for item, status in values.pop("items").items()}
            return cls(**values, items=items)
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is a damaged manifest ({error}); delete it, or choose another output") from error

    def _working_seconds(self) -> float:
        return round(self._seconds_before + time.monotonic() - self._clock_began, 3)


def check_same_settings(old: Manifest, new: Manifest) -> None:
    """Refuse to mix the results of two runs that differ in what decides them.

    Compared are the command, the model, the SHA-256 of its weights, the seed and every setting; not the options and
    not the versions.

    Raises:
        UserError: Names every difference with the old and the new value.

    Example:
        >>> try:
        ...     check_same_settings(Manifest("embed", {"pooling": "avg"}), Manifest("embed", {"pooling": "token"}))
        ... except UserError as error:
        ...     print(str(error).partition(";")[0])
        the output was begun with other settings (pooling: 'avg' then, 'token' now)
    """
    differences = [
        f"{key}: {_difference(before, now, key)}"
        for before, now in ((_made_with(old), _made_with(new)), (old.settings, new.settings))
        for key in before | now
        if before.get(key, _MISSING) != now.get(key, _MISSING)
    ]
    if differences:
        raise UserError(
            f"the output was begun with other settings ({'; '.join(differences)}); "
            "use the old settings or another output, or --overwrite where the command has it"
        )


_MISSING = object()


def _made_with(manifest: Manifest) -> dict[str, Any]:
    return {key: getattr(manifest, key) for key in ("command", "model", "weights_sha256", "seed")}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> str:
    old, new = before.get(key), now.get(key)
    if isinstance(old, Mapping) and isinstance(new, Mapping):  # sums of what the splits hold: which, not from what
        return f"{', '.join(each for each in dict.fromkeys((*old, *new)) if old.get(each) != new.get(each))} changed"
    return f"{_shown(before, key)} then, {_shown(now, key)} now"


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not set"


def manifest_path(output: str | os.PathLike[str], *, folder: bool | None = None) -> Path:
    """Return where the manifest of an output belongs: inside a folder, beside a file.

    Args:
        output: What the command writes.
        folder: Whether that is a folder; by default it is if it exists as one or has no suffix.

    Example:
        >>> manifest_path("emb.parquet").name, manifest_path("results").as_posix()
        ('emb.parquet.manifest.json', 'results/manifest.json')
    """
    path = Path(output)
    if folder is None:
        folder = path.is_dir() or not path.suffix
    return path / "manifest.json" if folder else path.with_name(path.name + ".manifest.json")


def is_result(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds what a model gave or what was trained: pictures in it are results, not images.

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
    """Return the versions a result can depend on: the packages, Python and the system."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def portable(value: Any) -> Any:
    """Turn a value into plain JSON data that names no folder outside the working directory, no user and no password.

    Paths become relative to the working directory, or lose their folders; URLs lose user and query; tuples become
    lists and other objects their text.

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
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if url := re.fullmatch(r"([a-z][a-z0-9+]*://)(?:[^/@]*@)?([^?#]*).*", text, flags=re.IGNORECASE):
        return url[1] + url[2]
    return _relative(text) if _is_absolute(text) else text


def _is_absolute(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~")


def _relative(text: str) -> str:
    path = Path(text).expanduser()
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return PureWindowsPath(text).name if "\\" in text else path.name


def _one_line(text: str) -> str:
    """Put a message on one line and take the folders out of the absolute paths in it."""
    line = " ".join(text.split())
    # These two first: they may hold spaces, which end a path for the pattern.
    for folder in (str(Path.cwd()), str(Path.home())):
        if len(folder) > 3:
            line = line.replace(folder + os.sep, "")
    return _FOLDERS.sub("", line)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
