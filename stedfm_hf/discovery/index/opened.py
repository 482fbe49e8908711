"""Open an index: its items and labels, their pixels, and the nearest neighbours of a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.data.building.labels import folder_labels
from stedfm_hf.data.sources import ImageFile, Source, find_sources, is_dataset
from stedfm_hf.discovery.index import approximate
from stedfm_hf.discovery.index.derived import APPROXIMATE, open_rows, open_standardiser, removed_rows
from stedfm_hf.discovery.index.layout import (
    DERIVED,
    ITEM_SCHEMA,
    Segment,
    State,
    derived_name,
    open_segment,
    read_state,
)
from stedfm_hf.discovery.index.standardised import Rows, Standardiser, fit_whitening, screen
from stedfm_hf.images import StedImage
from stedfm_hf.inference.one_image import one_channel
from stedfm_hf.runs import Manifest, UserError, manifest_path
from stedfm_hf.runs.files import file_stamp
from stedfm_hf.runs.storage import as_path, is_remote


@dataclass(frozen=True, eq=False)
class Index:
    """Opened index.

    Attributes:
        folder: Folder of the index.
        state: State that was read; later changes of the index are not seen.
        manifest: Manifest of the index: model, checksum of the weights and settings of the embeddings.
        rows: Embeddings of all items, memory-mapped, also of removed ones.
        standardiser: Mean and standard deviation of the embeddings.
        norms: Norms of the standardised embeddings (n,).
        removed: Whether each row belongs to a removed item (n,) bool; None if there are none.
        images: Folder or data set of the images, or None for where they were when the index was made.
    """

    folder: Path
    state: State
    manifest: Manifest
    rows: Rows
    standardiser: Standardiser
    norms: np.ndarray
    removed: np.ndarray | None
    images: str | Path | None = None

    @property
    def patches(self) -> bool:
        """Whether the rows are patches."""
        return self.state.pooling == "patch"

    @cached_property
    def segments(self) -> list[Segment]:
        """Segments, in order."""
        return [open_segment(self.folder, name) for name in self.state.segments]

    @cached_property
    def items(self) -> pa.Table:
        """Items that are not removed, with the columns `first` and `count` of their rows."""
        empty = ITEM_SCHEMA.empty_table()
        tables = [empty.append_column("first", empty["rows"]).append_column("count", empty["rows"])]
        first = 0
        for segment in self.segments:
            table = segment.items()
            counts = np.asarray(table["rows"]) * np.asarray(table["cols"])
            starts = first + np.cumsum(counts) - counts
            first += int(counts.sum())
            table = table.append_column("first", pa.array(starts)).append_column("count", pa.array(counts))
            kept = np.ones(len(counts), bool)
            kept[self.state.removed.get(segment.folder.name, [])] = False
            tables.append(table.filter(pa.array(kept)))
        return pa.concat_tables(tables)

    @cached_property
    def labels(self) -> list[str | None]:
        """First folder of each item; None if they are not in folders."""
        return folder_labels(self.items["path"].to_pylist())

    def __len__(self) -> int:
        return self.items.num_rows

    @cached_property
    def whitening(self) -> np.ndarray:
        """Matrix (D, D) float32 that removes the correlations between standardised embeddings."""
        kept = np.arange(len(self.rows)) if self.removed is None else np.flatnonzero(~self.removed)
        return fit_whitening(self.rows, self.standardiser, kept)

    @property
    def count(self) -> int:
        """Number of embeddings that are not removed."""
        return len(self.rows) - (0 if self.removed is None else int(self.removed.sum()))

    def item(self, number: int) -> dict[str, Any]:
        """Return the columns of an item."""
        return self.items.slice(number, 1).to_pylist()[0]

    def item_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of the item of each row."""
        return np.searchsorted(np.asarray(self.items["first"]), rows, side="right") - 1

    def embeddings(self, number: int) -> np.ndarray:
        """Return the embeddings of an item: (rows, cols, D) float32; for images, (1, 1, D)."""
        item = self.item(number)
        values = self.rows.take(np.arange(item["first"], item["first"] + item["count"]))
        return values.reshape(item["rows"], item["cols"], -1)

    def rows_of(self, items: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return whether each row belongs to one of some items, (n,) bool."""
        found = np.zeros(len(self.rows), bool)
        for number in items:
            item = self.item(int(number))
            found[item["first"] : item["first"] + item["count"]] = True
        return found

    def nearest(self, queries: np.ndarray, k: int, *, excluded: np.ndarray | None = None) -> tuple[Any, Any]:
        """Find the rows with the highest cosine similarity to queries, by the search of the index.

        Args:
            queries: Queries (m, D) in the standardised space (`standardiser`), of any length; zeros have similarity 0.
            k: Number of rows.
            excluded: Whether each row is excluded (n,) bool; removed rows always are.

        Returns:
            Rows (m, k) int64 and similarities (m, k) float64, the most similar first. Similarities are computed in
            double precision. Where fewer rows are left, the last ones have similarity minus infinity.
        """
        queries = np.atleast_2d(np.asarray(queries, np.float64))
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        queries = queries / np.where(norms == 0, 1.0, norms)
        excluded = self.removed if excluded is None else excluded if self.removed is None else excluded | self.removed
        k = min(k, len(self.rows))
        wanted = min(max(k + k // 2 + 8, approximate.RERANKED if self._approximate else 0), len(self.rows))
        if self._approximate:
            found = approximate.candidates(self._approximate, queries, wanted, excluded)
            values = np.where(found < 0, -np.inf, 0.0)
        else:
            found, values = screen(self.rows, self.standardiser, self.norms, queries, wanted, excluded)
        pairs = [self._rank(*each, k) for each in zip(queries, found, values, strict=True)]
        rows, similarity = zip(*pairs, strict=True)
        return np.stack(rows), np.stack(similarity)

    def read(self, number: int) -> StedImage | None:
        """Read the image of an item with its channel, or None if the file is not found or cannot be read."""
        item = self.item(number)
        source = self.source(item)
        if source is None:
            return None
        try:
            image = source.read(item["series"], None)[0]
            names = image.channel_names
            return one_channel(image, names.index(item["channel"])) if item["channel"] in names else image
        except (ValueError, OSError):
            return None

    def source(self, item: dict[str, Any]) -> Source | None:
        """Return the file or data set row of an item, or None if it is not found."""
        if self.images is not None and not is_dataset(self.images):
            root = as_path(self.images)
            file = root if root.is_file() else root / item["path"]
        elif self.images is None and item["file"] is not None:
            file = as_path(item["file"]) if is_remote(item["file"]) else self.folder / item["file"]
        else:
            return self._rows_of_datasets.get(item["path"])
        return ImageFile(file, item["path"], None) if file_stamp(file) is not None else None

    @cached_property
    def _rows_of_datasets(self) -> dict[str, Source]:
        """Rows of the data sets of the index by path; empty where they are not found."""
        names = {name for segment in self.segments for name in segment.datasets}
        given: list[str | Path | None] = [_found(self.folder, name) for name in sorted(names)]
        if self.images is not None:
            given = [self.images]
        found: dict[str, Source] = {}
        for each in [name for name in given if name is not None]:
            try:
                found |= {source.path: source for source in find_sources(each)[0]}
            except (UserError, OSError):
                continue
        return found

    @cached_property
    def _approximate(self) -> Any:
        if self.state.search != "approximate":
            return None
        return approximate.open_approximate(self.folder / DERIVED / derived_name(self.state) / APPROXIMATE)

    def _rank(self, query: np.ndarray, found: np.ndarray, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rank candidates of one query in double precision; ties are in the order of the rows."""
        candidates = np.sort(found[np.isfinite(values)])
        rows, similarity = np.full(k, -1, np.int64), np.full(k, -np.inf)
        if len(candidates):
            # Each row is summed separately: in a matrix product, the last digit can depend on the other rows.
            exact = (self.standardiser.unit(self.rows.take(candidates)) * query).sum(axis=1)
            order = np.lexsort((candidates, -exact))[:k]
            rows[: len(order)], similarity[: len(order)] = candidates[order], exact[order]
        return rows, similarity


def open_index(folder: str | Path, images: str | Path | None = None) -> Index:
    """Open an index.

    Args:
        folder: Folder of `stedfm index`.
        images: Folder or data set of the images; by default where they were when the index was made.

    Raises:
        UserError: If the folder is not an index, or a file of it is missing or damaged.
    """
    folder = Path(folder)
    for attempt in (0, 1):
        state = read_state(folder)
        try:
            removed = removed_rows(folder, state)
            standardiser, norms = open_standardiser(folder, state)
            rows = open_rows(folder, state)
            break
        except UserError:
            # The state was replaced between the reading of two files: read the new one.
            if attempt or read_state(folder).version == state.version:
                raise
    if images is not None and not is_dataset(images) and file_stamp(images) is None:
        raise UserError(f"--images {images}: no such folder; give the folder of the images of the index")
    manifest = Manifest.load(manifest_path(folder, folder=True))
    index = Index(folder, state, manifest, rows, standardiser, norms, removed if removed.any() else None, images)
    if not len(index):
        raise UserError(f"{folder}: the index is empty; add images with `stedfm index IMAGES --output {folder}`")
    return index


def _found(folder: Path, name: str) -> str | None:
    """Return the folder of a data set that is recorded relative to the index, or its Hub id."""
    if is_remote(name):
        return name
    return str(folder / name) if (folder / name).exists() else name if is_dataset(name) else None
