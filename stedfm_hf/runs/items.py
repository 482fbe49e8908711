"""Process the items of a command: failed items are recorded, and an interrupted run resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from stedfm_hf.runs.executors import Workers, run_items
from stedfm_hf.runs.output import Output
from stedfm_hf.runs.progress import Progress

T = TypeVar("T")
_SAVE_EVERY = 5.0  # seconds between two saves of the manifest


def process_items(
    output: Output,
    items: Mapping[str, tuple[Any, ...]],
    function: Callable[..., T],
    *,
    keep: Callable[[str, T], str | None] | None = None,
    unit: str = "images",
    workers: int | Workers = 1,
) -> None:
    """Process the items that are not done yet, and record the status of each.

    Args:
        output: Output of the command; its manifest records the items that are done.
        items: Arguments of the function, by item.
        function: Module-level function. If it raises a ValueError, OSError or MemoryError, the item has failed.
        keep: Function called in this process with an item and its result before the item is done; returns a note.
        unit: Plural name of the items.
        workers: Workers, or a number of processes (see `run_items`).
    """
    manifest = output.manifest
    remaining = {item: arguments for item, arguments in items.items() if item not in manifest.items}
    calls = ((function, item, arguments) for item, arguments in remaining.items())
    saved = time.monotonic()
    with Progress(len(items), description=manifest.command, unit=unit, done=len(items) - len(remaining)) as progress:
        for item, result, error in run_items(_attempt, calls, workers=workers):
            if error is None:
                manifest.done(item, None if keep is None else keep(item, cast(T, result)))
            else:
                manifest.failed(item, error)
                progress.note(f"stedfm: error: {item}: {manifest.items[item].reason}")
            progress.update()
            if time.monotonic() - saved > _SAVE_EVERY:
                output.save()
                saved = time.monotonic()


def _attempt(function: Callable[..., T], item: str, arguments: tuple[Any, ...]) -> tuple[str, T | None, str | None]:
    """Call the function and return the item, its result and its error."""
    try:
        return item, function(*arguments), None
    except (ValueError, OSError, MemoryError) as error:
        return item, None, str(error) or type(error).__name__
