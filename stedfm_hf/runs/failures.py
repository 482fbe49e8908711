"""Report items that failed."""

from __future__ import annotations

from collections.abc import Mapping

from stedfm_hf.runs.manifest import Manifest
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.wording import counted

MOST_PRINTED = 10
"""Largest number of items that are printed."""


def print_failed(failed: Mapping[str, str]) -> None:
    """Print why the first items failed, one line each, for commands that need all items.

    Args:
        failed: Reason by item.
    """
    for name in list(failed)[:MOST_PRINTED]:
        print_note(f"error: {name}: {failed[name]}")
    if len(failed) > MOST_PRINTED:
        print_note(f"error: {counted(len(failed) - MOST_PRINTED, 'item')} more failed; the manifest lists them")


def record_failures(failed: Mapping[str, str], manifest: Manifest) -> None:
    """Print all failed items, and record them.

    Args:
        failed: Reason why an item failed, by its name.
        manifest: Manifest of the output.
    """
    for name, reason in failed.items():
        print_note(f"error: {name}: {reason}")
        manifest.failed(name, reason)
