"""Encoders that come with the package, with a short id, to try commands without a network."""

from __future__ import annotations

from pathlib import Path

PACKAGED = {"demo": "trained on simulated images only: for trying things out, not for results"}
"""Id of every packaged encoder, with a note that is shown wherever it is used."""


def packaged_folder(model: str) -> Path | None:
    """Return the folder of a packaged encoder, for `from_pretrained`.

    Returns:
        Folder, or None if the name is not that of a packaged encoder. `demo` always means the packaged encoder; write
        `./demo` for a folder with this name.

    Example:
        >>> packaged_folder("demo").name, packaged_folder("flclab/stedfm-vit-small")
        ('demo', None)
    """
    return Path(__file__).parent / model if model in PACKAGED else None
