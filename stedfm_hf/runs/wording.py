"""Format counts, lists of names and tables for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "image"), counted(1200, "image")
        ('1 image', '1,200 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some_of(names: Sequence[object], most: int = 3) -> str:
    """Return the first names, and the number of the others.

    Example:
        >>> some_of(["a.tif", "b.tif"]), some_of(range(20))
        ('a.tif, b.tif', '0, 1, 2 and 17 more')
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table as lines with aligned columns.

    Example:
        >>> print(text_table(["name", "images"], [["optim", "438"]]))
        name   images
        optim  438
    """
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the closest known name; empty if none is close.

    Example:
        >>> nearest("embedd", ["embed", "segment"])
        '; did you mean embed?'
    """
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""
