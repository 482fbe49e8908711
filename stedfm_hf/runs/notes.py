"""Notes on items: what was guessed or left out, reported once per run with the number of items."""

from __future__ import annotations

from collections.abc import Iterable

from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.wording import counted, some_of


class ItemNotes:
    """Collects notes on items, and prints each note once.

    Args:
        noun: Name of an item.

    Example:
        >>> notes = ItemNotes("file")
        >>> for name in ("a.tif", "b.tif"):
        ...     _ = notes.add(name, ["preview pages are left out"])
        >>> notes.lines()
        ['2 files: preview pages are left out (a.tif, b.tif)']
    """

    def __init__(self, noun: str = "file") -> None:
        self._noun = noun
        self._items: dict[str, dict[str, None]] = {}

    def add(self, item: str, notes: Iterable[str]) -> str | None:
        """Add the notes on an item, and return them as one line for the manifest; None without notes."""
        notes = list(dict.fromkeys(notes))
        for note in notes:
            self._items.setdefault(note, {})[item] = None
        return "; ".join(notes) or None

    def lines(self) -> list[str]:
        """Return a line for each note."""
        return [
            f"{counted(len(items), self._noun)}: {note} ({some_of(list(items))})"
            for note, items in self._items.items()
        ]

    def print(self) -> None:
        """Print a line for each note on standard error."""
        for line in self.lines():
            print_note(f"note: {line}")
