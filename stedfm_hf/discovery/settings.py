"""Settings of `index` and `search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stedfm_hf.exports.backends import check_backend
from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import argument, option, settings
from stedfm_hf.runs.storage import as_path

SEARCHES = ("auto", "exact", "approximate")
EXCLUDED = ("none", "source", "condition")


STATE = "index.json"
"""File that names the current state of an index."""


def is_index(folder: str | Path) -> bool:
    """Return whether a folder holds an index of `stedfm index`.

    Example:
        >>> is_index("/nowhere")
        False
    """
    return (as_path(folder) / STATE).is_file() and (as_path(folder) / "segments").is_dir()


def _images() -> Any:
    return option(
        None,
        affects_result=False,
        metavar="DIR",
        group=options.INPUT,
        storage=True,
        help="Folder or data set of the images, if the index was made of a table or the images were moved.",
    )


@settings
class IndexSettings:
    """Index images or their patches for `stedfm search`.

    Run the same command again to resume, and to add new and changed files. While files are added, searches use the
    previous state of the index. Unreadable files are skipped and listed; the exit status is then 1.
    """

    inputs: options.Inputs = argument(
        (),
        affects_result=False,
        multiple=True,
        metavar="INPUT",
        storage=True,
        help="Image files, folders (searched recursively), globs, folders or Hub ids of data sets, or one table of "
        "`stedfm embed`.",
    )
    output: str | Path = option(
        Path("index"),
        affects_result=False,
        metavar="DIR",
        storage=True,
        help="Folder of the index; an existing index is extended.",
    )
    patches: bool = option(
        False, affects_result=False, help="Index every patch, to search for places in images, not only whole images."
    )
    model: str | Path | None = options.model()
    remove: list[str] = option(
        default_factory=list,
        affects_result=False,
        multiple=True,
        metavar="GLOB",
        help="Remove the items whose path matches, such as 'day1/*'; matching inputs are not added.",
    )
    search: str = option(
        "auto",
        affects_result=False,
        choices=SEARCHES,
        help="Kind of search: exact, approximate (with faiss), or auto: approximate from one million embeddings on.",
    )
    images: str | Path | None = _images()
    source_pattern: str | None = options.source_pattern()
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    normalization: str | None = options.normalization()
    intensity_range: tuple[float, float] | None = options.intensity_range()
    precision: str = options.precision(backends=True)
    device: str = options.devices()
    cluster: str | None = options.cluster()
    backend: str = options.backend()
    tile_size: str | int | None = options.tile_size()
    batch_size: int = options.batch_size(32)
    workers: int | None = options.workers("threads that read images")
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse a run that would do nothing, and a backend that cannot run."""
        if not self.inputs and not self.remove:
            raise UserError("INPUT is missing: give images, a data set or a table, or remove items with --remove")
        check_backend(self.backend, self.precision, self.device)


@settings
class SearchSettings:
    """Search an index for images or places like a query.

    The query is an image, a region of it, or several examples. Counter-examples move the result away from them. The
    query itself is never a result.
    """

    index: str | Path = argument(metavar="INDEX", storage=True, help="Folder of `stedfm index`.")
    query: str | Path | None = argument(
        None,
        metavar="QUERY",
        storage=True,
        help="Image file, or path of an item of the index; may be left out with --like.",
    )
    output: str | Path = option(
        Path("similar"), affects_result=False, metavar="DIR", storage=True, help="Folder of the results to write."
    )
    box: tuple[float, float, float, float] | None = option(
        None, metavar="X Y WIDTH HEIGHT", help="Region of the query to search for: a box in pixels, from the top left."
    )
    mask: str | Path | None = option(
        None,
        metavar="FILE",
        help="Region of the query to search for: mask image, ImageJ ROI (.roi, .zip), or polygons in a text file.",
    )
    like: list[str] = option(
        default_factory=list,
        multiple=True,
        metavar="EXAMPLE",
        storage=True,
        help="More examples: image files or names of the results, each with a box if needed: NAME@X,Y,WIDTH,HEIGHT.",
    )
    unlike: list[str] = option(
        default_factory=list,
        multiple=True,
        metavar="EXAMPLE",
        storage=True,
        help="Counter-examples, given like the examples. With two examples, a linear model separates both.",
    )
    exclude: str = option(
        "none",
        choices=EXCLUDED,
        help="Also exclude other items of the source images of the examples, or of their conditions (folders).",
    )
    count: int = option(50, minimum=1, help="Number of results.")
    min_distance_px: float | None = option(
        None, minimum=1, help="Smallest distance of two places, in pixels; by default the size of the region."
    )
    maps: int = option(12, minimum=0, help="Number of images that get a map of similarities and an overlay.")
    model: str | Path | None = option(
        None,
        affects_result=False,
        help="Folder or Hub id of the model of the index; by default where it was when the index was made.",
    )
    images: str | Path | None = _images()
    series: str | int | None = options.series("Series of the query to search for; by default the only one.")
    channel: str | int | None = options.channel()
    device: str = options.device()
    batch_size: int = options.batch_size(32)
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse a search without examples, and a region without an image."""
        if self.query is None and not self.like:
            raise UserError("QUERY is missing: give an image, or examples with --like")
        if self.box is not None and self.mask is not None:
            raise UserError("--box and --mask both give the region of the query; give one of them")
        if self.query is None and (self.box is not None or self.mask is not None):
            raise UserError("--box and --mask are regions of QUERY, which is missing; for --like, use PATH@X,Y,W,H")
