"""Settings of `stedfm data list`, `stats` and `push`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import options
from stedfm_hf.runs.settings import argument, option, settings


@settings
class ListSettings:
    """List the published sets, and where their files come from."""


@settings
class StatsSettings:
    """Count crops, labels and source images, and measure intensities.

    Reads the whole data set once, with little memory; from the Hub, nothing is stored.
    """

    dataset: str | Path = argument(help="Folder of a data set, or its id on the Hub; `@revision` may follow the id.")
    output: Path | None = option(
        None, decides=False, help="Folder to write: stats.json, and a histogram and a contact sheet as PNG and SVG."
    )
    overwrite: bool = options.overwrite()


@settings
class PushSettings:
    """Publish a data set on the Hugging Face Hub.

    The data set is checked first, and private unless --public is given. If interrupted, run the same command again to
    resume.
    """

    dataset: Path = argument(help="Folder of the data set.")
    hub_id: str = argument(help="OWNER/NAME on the Hub; created if it is not there.")
    public: bool = option(False, help="Make the data set visible to everybody; one that is there must be public, too.")
    manifest: bool = option(False, help="Publish manifest.json, too: it names every input file.")
    allow_paths: bool = option(False, help="Publish even if sources or metadata hold absolute paths.")
