"""Settings of `info`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs.settings import argument, settings


@settings
class InfoSettings:
    """Show series, channels, size, type and pixel size of image files.

    Unreadable files are reported and the others are shown; the exit status is then 1.
    """

    files: list[Path] = argument(multiple=True, metavar="FILE", help="Image files.")
