"""Settings of `info`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs.settings import argument, option, settings


@settings
class InfoSettings:
    """Show series, channels, size and pixel size of image files.

    A folder is summarised: groups of equal files, masks, doubtful files, and what every command would read. Unreadable
    files are reported and the others are shown; the exit status is then 1.
    """

    inputs: list[Path] = argument(
        multiple=True, metavar="INPUT", help="Image files, folders (searched recursively) and globs."
    )
    thumbnails: Path | None = option(
        None, affects_result=False, metavar="FILE", help="HTML page to write, with a thumbnail of every image."
    )
