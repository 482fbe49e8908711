"""Encoders that come with the package, known by a short id: for trying things out without a network."""

from __future__ import annotations

from pathlib import Path

PACKAGED = {"demo": "trained on simulated images only: for trying things out, not for results"}
"""Id of every packaged encoder, and what must be said of it wherever it is used."""


def packaged_folder(model: str) -> Path | None:
    """Folder of a packaged encoder, which `from_pretrained` takes.

    Returns:
        The folder, or None where the name is not that of a packaged encoder. Such a name always means the packaged
        one: write `./demo` for a folder of your own of that name.

    Example:
        >>> packaged_folder("demo").name, packaged_folder("flclab/stedfm-vit-small")
        ('demo', None)
    """
    return Path(__file__).parent / model if model in PACKAGED else None
