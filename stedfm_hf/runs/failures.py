"""Report items that failed, of commands that need all of them before they write a result."""

from __future__ import annotations

from collections.abc import Mapping

from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.wording import counted

MOST_PRINTED = 10
"""Largest number of items that are printed."""


def print_failed(failed: Mapping[str, str]) -> None:
    """Print why items failed, one line for each of the first ones.

    Args:
        failed: Reason by item.
    """
    for name in list(failed)[:MOST_PRINTED]:
        print_note(f"error: {name}: {failed[name]}")
    if len(failed) > MOST_PRINTED:
        print_note(f"error: {counted(len(failed) - MOST_PRINTED, 'item')} more failed; the manifest lists them")
