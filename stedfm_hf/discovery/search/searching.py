"""`stedfm search`: find similar images, or similar places in images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.discovery.index.layout import read_state
from stedfm_hf.discovery.index.naming import item_name
from stedfm_hf.discovery.settings import SearchSettings
from stedfm_hf.runs import atomic_path, counted
from stedfm_hf.runs.copies import local_copy, working_copy
from stedfm_hf.runs.output import Output, check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.storage import as_path
from stedfm_hf.runs.wording import text_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from stedfm_hf.discovery.index.opened import Index
    from stedfm_hf.discovery.search.queries import Example

RESULTS, GALLERY = "results.parquet", "gallery.html"
OF_PLACES = ("contact_sheet.png", "maps", "rois", "points")
"""Names of the results that only a search for places writes."""
_LISTED = 5


@dataclass(frozen=True)
class SearchResult(OutputResult):
    """Result of `stedfm search`.

    Attributes:
        table: Results, the most similar first.
        noun: What the results are: `image` or `place`.
    """

    table: pa.Table
    noun: str

    def summary(self) -> str:
        """Return the first results, and where all of them are."""
        names = ["rank", "score", "path", *[name for name in ("x_px", "y_px") if name in self.table.column_names]]
        rows = self.table.slice(0, _LISTED).to_pylist()
        cells = [[_cell(row, name) for name in names] for row in rows]
        first = text_table(names, cells) + "\n" if rows else ""
        return f"{first}{self.output / GALLERY}: {counted(len(self.table), self.noun)}"

    def to_json(self) -> dict[str, Any]:
        """Return the results as rows."""
        return super().to_json() | {"results": self.table.to_pylist()}


def _cell(row: Mapping[str, Any], name: str) -> str:
    if name == "path":
        return item_name(row)
    return f"{row[name]:.3f}" if name == "score" else f"{row[name]}"


@takes_settings(SearchSettings)
def search(settings: SearchSettings) -> SearchResult:
    """Search an index for images or places like a query.

    Embeddings are standardised over the index and compared by their cosine similarity; for places, without the
    correlations between their features. The query itself is never a result: in an index of images, the images that are
    examples; in an index of patches, places that overlap an example. An example is the mean over its region.

    Returns:
        Folder, manifest and table of results. For an index of patches the columns also have the place: `y_px`, `x_px`,
        `height_px`, `width_px`, and `y_um`, `x_um` where the pixel size is known.

    Raises:
        UserError: For wrong arguments, an index that cannot be read, or a query that does not fit it.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> from stedfm_hf.discovery.index import index
        >>> folder = Path(tempfile.mkdtemp())
        >>> StedFmModel(StedFmConfig(num_hidden_layers=1)).save_pretrained(folder / "model")
        >>> for name in "abc":
        ...     np.save(folder / f"{name}.npy", np.random.default_rng(ord(name)).random((64, 64)))
        >>> _ = index(folder, output=folder / "index", model=folder / "model", device="cpu")
        >>> found = search(folder / "index", folder / "a.npy", output=folder / "similar", model=folder / "model")
        >>> sorted(found.table["path"].to_pylist())
        ['b.npy', 'c.npy']
    """
    target = as_path(settings.output)
    check_output(target, "search", is_folder=True, overwrite=settings.overwrite)
    # An index is memory-mapped, so that one in an object store is copied first.
    with working_copy(as_path(settings.index), writes=False) as folder:
        read_state(folder)
        return _search_index(replace(settings, index=folder), target)


def _search_index(settings: SearchSettings, target: Path) -> SearchResult:
    """Search an index on this machine, and write the results to `target`."""
    # Errors up to here are reported at once: these modules import torch, which takes seconds.
    import pyarrow.parquet as pq

    from stedfm_hf.discovery.index.opened import open_index
    from stedfm_hf.discovery.search.queries import ExampleReader

    index = open_index(settings.index, settings.images)
    noun = "place" if index.patches else "image"
    with open_output(
        target,
        "search",
        settings,
        results=[RESULTS, GALLERY],
        temporary=OF_PLACES,
        resolved={"index_version": index.state.version},
        model=index.manifest.model,
        weights_sha256=index.manifest.weights_sha256,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            output.report_finished()
        else:
            reader = ExampleReader(index, settings)
            likes = [*reader.query(), *map(reader.read, map(str, settings.like))]
            unlikes = [reader.read(str(each)) for each in settings.unlike]
            table = _search(index, likes, unlikes, settings, output)
            with atomic_path(target / RESULTS) as temporary:
                pq.write_table(table, temporary, compression="zstd")
            for each in (*likes, *unlikes):
                output.manifest.done(Path(each.name).name)
    with local_copy(target / RESULTS) as file:
        return SearchResult(target, output.manifest, pq.read_table(file), noun)


def _search(
    index: Index, likes: list[Example], unlikes: list[Example], settings: SearchSettings, output: Output
) -> pa.Table:
    """Search, and write the page and the files of the results."""
    from stedfm_hf.discovery.search.ranking import direction, excluded_items, uses_model

    query = direction(index.standardiser, likes, unlikes)
    excluded = excluded_items(index, [*likes, *unlikes], settings.exclude)
    how = {"ranking": "linear model" if uses_model(likes, unlikes) else "cosine similarity"}
    if settings.exclude != "none":
        how["excluded"] = f"same {settings.exclude}"
    if index.patches:
        from stedfm_hf.discovery.search.patches import write_places

        return write_places(index, query, likes, unlikes, excluded, settings, output.path, how)
    return _write_images(index, query, likes, unlikes, excluded, settings, output.path, how)


def _write_images(
    index: Index,
    query: np.ndarray,
    likes: list[Example],
    unlikes: list[Example],
    excluded: np.ndarray,
    settings: SearchSettings,
    folder: Path,
    how: dict[str, str],
) -> pa.Table:
    """Find the most similar images and write the gallery."""
    from stedfm_hf.discovery.search.gallery import SHOWN, result_figure, write_gallery
    from stedfm_hf.discovery.search.images import nearest_images, result_table

    items, scores = nearest_images(index, query, settings.count, excluded)
    table = result_table(index, items, scores)
    records = table.slice(0, SHOWN).to_pylist()
    figures = [result_figure(record, index.read(int(number))) for record, number in zip(records, items, strict=False)]
    write_gallery(folder / GALLERY, index, likes, unlikes, figures, noun="image", total=len(table), how=how)
    return table
