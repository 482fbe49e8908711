"""Find the items that kill their worker: a file records the attempts at a batch, and survives the worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from stedfm_hf.runs.files import atomic_path, read_json, remove_path

T = TypeVar("T")
DEADLY = "killed its worker three times, perhaps for lack of memory"
"""Reason of an item that is given up."""
_ALONE = 2
"""Number of times that an item kills its worker alone, after it did so once in its batch."""
BATCH_ATTEMPTS = 13
"""Number of attempts at a batch (`run_items`): enough to find six items that kill their worker. A rerun goes on."""


@contextmanager
def attempt(items: Mapping[str, T], folder: Path | None, try_alone: Callable[[T], Any]) -> Iterator[frozenset[str]]:
    """Find the items of a batch that kill their worker, and record this attempt at the batch.

    The first attempt takes all items. After one that killed its worker, every item is tried alone; an item that kills
    its worker a third time is given up. At the end, also after an error, the record is removed.

    Args:
        items: Items of the batch by name, the same in every attempt.
        folder: Folder of the record, on storage that all workers share; None records nothing.
        try_alone: Function that does the work of one item.

    Yields:
        Names of the items that are given up.

    Example:
        >>> import tempfile
        >>> with attempt({"a.tif": 1}, Path(tempfile.mkdtemp()), print) as given_up:
        ...     print(sorted(given_up))
        []
    """
    if folder is None:
        yield frozenset()
        return
    record = folder / f"{sha256(json.dumps(list(items)).encode()).hexdigest()[:16]}.attempts.json"
    begun = record.exists()
    deaths, alone = _read(record) if begun else ({}, [])
    try:
        for name, item in items.items() if begun else ():
            if name not in alone and deaths.get(name, 0) < _ALONE:
                _write(record, deaths, alone, name)
                try_alone(item)
                alone.append(name)
        _write(record, deaths, alone, None)
        yield frozenset(name for name, count in deaths.items() if count >= _ALONE)
    finally:
        remove_path(record)


def _read(record: Path) -> tuple[dict[str, int], list[str]]:
    """Return how often each item killed its worker alone, and the items that did not."""
    found = read_json(record)
    deaths, alone, trying = dict(found["deaths"]), list(found["alone"]), found["trying"]
    if trying is None:
        return deaths, []  # the batch killed its worker: any of its items may have done it
    return deaths | {trying: deaths.get(trying, 0) + 1}, alone


def _write(record: Path, deaths: Mapping[str, int], alone: list[str], trying: str | None) -> None:
    with atomic_path(record) as temporary:
        temporary.write_text(json.dumps({"deaths": deaths, "alone": alone, "trying": trying}), "utf-8")
