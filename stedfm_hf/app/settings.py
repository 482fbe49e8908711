"""Settings of the app."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.discovery.settings import is_index
from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import option, settings


@settings
class AppSettings:
    """Serve the models as an app in the browser.

    Visitors drop an image file to reconstruct it, find similar images and structures, classify, segment and compare
    it, see what a model looks at and what an attribute looks like, and see the groups of a folder. The app makes no
    request to another host. The files of a visitor are deleted when the visit ends.
    """

    model: str | Path = option(
        "demo", affects_result=False, help="Folder of a model, Hub id, or `demo`, the packaged encoder."
    )
    classifier: str | Path | None = option(
        None, affects_result=False, help="Folder of `stedfm finetune classification`, or Hub id."
    )
    segmenter: str | Path | None = option(
        None,
        affects_result=False,
        help="Folder of `stedfm finetune segmentation`, or Hub id; with `demo`, by default a packaged one that was "
        "trained on simulated images only.",
    )
    index: str | Path | None = option(
        None,
        affects_result=False,
        metavar="PATH",
        help="Images that `Find similar` searches: folder of `stedfm index`, folder of images, data set, or table of "
        "`stedfm embed`; by default simulated images.",
    )
    index_images: str | Path | None = option(
        None,
        affects_result=False,
        metavar="DIR",
        help="Folder or data set of the images that the table or index was made of.",
    )
    finder: list[str] = option(
        default_factory=list,
        affects_result=False,
        metavar="DIR",
        help="Folders of `stedfm finder fit`, which `Find structures` applies.",
    )
    groups: str | Path | None = option(
        None, affects_result=False, metavar="DIR", help="Folder of `stedfm cluster`, whose tree `Groups` shows."
    )
    generator: str | Path | None = option(
        None,
        affects_result=False,
        metavar="DIR",
        help="Folder or Hub id of a generation pipeline, for `Generate`; with `demo`, by default a packaged one.",
    )
    directions: list[str] = option(
        default_factory=list,
        affects_result=False,
        metavar="DIR",
        help="Folders of `stedfm attribute fit`, along which `Generate` walks.",
    )
    host: str = options.host("0.0.0.0 admits other computers")
    port: int = options.port(7860)
    max_file_mb: float = option(
        200.0,
        affects_result=False,
        minimum=0.01,
        group=options.SERVER,
        help="Size of the largest file, in MB (10^6 bytes).",
    )
    max_megapixels: float = options.max_megapixels()
    max_seconds: float = options.max_seconds()
    max_parallel: int = option(
        3,
        affects_result=False,
        minimum=1,
        group=options.SERVER,
        help="Number of computations that run at the same time.",
    )
    max_waiting: int = options.max_waiting(16, minimum=1)
    visit_minutes: float = option(
        60.0,
        affects_result=False,
        minimum=0.01,
        group=options.SERVER,
        help="Time without activity after which the files of a visitor are deleted, in minutes.",
    )
    device: str = options.device()
    precision: str = options.precision()

    def check(self) -> None:
        """Refuse a folder of index images without a table."""
        given = self.index
        if self.index_images is not None and (given is None or (Path(given).is_dir() and not is_index(given))):
            raise UserError("--index-images needs a table of `stedfm embed` or an index; give it with --index")
        if bool(self.directions) != (self.generator is not None):
            raise UserError("--generator and --directions belong together; give both, or leave out both")
