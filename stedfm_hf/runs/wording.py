"""Format counts, lists of names and tables for people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "image"), counted(1200, "image"), counted(2, "series")
        ('1 image', '1,200 images', '2 series')
    """
    return f"{number:,} {noun}{'' if number == 1 or noun.endswith('series') else 's'}"


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


def escaped(text: str) -> str:
    r"""Return a file name that every table, report and terminal can hold.

    Bytes that are not UTF-8 and control characters become backslash escapes; all other names are unchanged.

    Example:
        >>> print(escaped("caf\udce9\n.tif"), escaped("Zürich 1.tif"))
        caf\xe9\x0a.tif Zürich 1.tif
    """
    return _NOT_TEXT.sub(lambda match: _escape(ord(match[0])), text)


def _escape(code: int) -> str:
    # Python reads the byte 0xE9 of a file name that is not UTF-8 as U+DCE9.
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    return f"\\x{byte:02x}" if byte < 256 else f"\\u{byte:04x}"
