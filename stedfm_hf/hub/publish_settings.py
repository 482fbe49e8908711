"""Settings of `publish`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.cards.checks import check_licence
from stedfm_hf.runs.settings import argument, option, settings


@settings
class PublishSettings:
    """Check a folder and publish it on the Hugging Face Hub.

    The folder is a model, a pipeline of diffusers, a data set, an export or a Space. Nothing is uploaded if there is a
    problem: a model has to load with and without this package, the card has to be complete, and there must be no
    pickle, no secret and no absolute path.

    The repository is private unless --public is given. If interrupted, run the same command again to resume.
    """

    folder: Path = argument(help="Folder to publish.")
    hub_id: str = argument(help="OWNER/NAME on the Hub; the repository is created if it does not exist.")
    public: bool = option(False, help="Create a public repository; an existing one must be public already.")
    licence: str | None = option(
        None,
        metavar="ID",
        help="Licence to write into a card without one, as the Hub names it, such as mit or cc-by-4.0.",
    )
    tag: str | None = option(None, help="Tag of the published version, such as v1.0; set after the upload.")
    overwrite: bool = option(False, help="Replace files with other content on the Hub.")
    allow_paths: bool = option(False, help="Publish even if texts contain absolute paths.")
    manifest: bool = option(False, help="Also publish manifest.json, which lists all input files by name.")
    dry_run: bool = option(False, help="List files and problems, and upload nothing.")

    def check(self) -> None:
        """Refuse a licence that the Hub does not know."""
        if self.licence is not None:
            check_licence(self.licence)
