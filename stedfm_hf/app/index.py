"""Index of embedded images: search by similarity, and votes of the nearest images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.app.examples import write_index_images
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.data.building.labels import folder_labels
from stedfm_hf.data.sources import Source, find_sources
from stedfm_hf.evaluation import zscore_by
from stedfm_hf.inference import Encoder, embed
from stedfm_hf.inference.tables import embedding_schema, read_table
from stedfm_hf.metrics.neighbours import nearest
from stedfm_hf.runs import UserError

SIMULATED = "the simulated example images"
MOST_PAIRS = 500
"""Largest number of images whose pairs are compared for the reference similarities."""


@dataclass(frozen=True, eq=False)
class Index:
    """Embedded images.

    Attributes:
        name: What the images are, for sentences.
        table: Table of `stedfm embed`.
        sources: Files or data set rows of the images by path; empty if they are not known.
    """

    name: str
    table: pa.Table
    sources: dict[str, Source]

    @cached_property
    def embeddings(self) -> np.ndarray:
        """Embeddings (n, D)."""
        column = self.table["embedding"].combine_chunks()
        return np.asarray(column.flatten()).reshape(len(self.table), -1)

    @cached_property
    def labels(self) -> list[str | None]:
        """Name of the folder of each image; None if they are not in folders."""
        return folder_labels(self.table["path"].to_pylist())

    def search(self, embedding: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the most similar images.

        Features are standardised over the index, as in `stedfm evaluate knn`.

        Args:
            embedding: Embedding (D,).
            k: Number of images.

        Returns:
            Rows of the table (k,) and their cosine similarities (k,), the most similar first.
        """
        gallery, query = zscore_by(self.embeddings, embedding[None])
        rows, similarity = nearest(gallery, query, k=k)
        return rows[0], similarity[0]

    def found(self, rows: np.ndarray, similarity: np.ndarray) -> pa.Table:
        """Return the table of the result of `search`: path, series, channel, label and similarity."""
        table = self.table.select(["path", "series", "channel", "pixel_size_nm", "model", "weights_sha256"])
        labels = pa.array([self.labels[row] for row in rows], pa.string())
        table = table.take(pa.array(rows)).append_column("folder", labels)
        return table.append_column("similarity", pa.array(similarity, pa.float64()))

    def votes(self, rows: np.ndarray) -> Counter[str]:
        """Count the folders of some rows."""
        return Counter(label for row in rows if (label := self.labels[row]) is not None)

    def similarity(self, first: np.ndarray, second: np.ndarray) -> float:
        """Return the cosine similarity of two embeddings (D,), standardised over the index."""
        _, both = zscore_by(self.embeddings, np.stack([first, second]))
        return float(nearest(both[:1], both[1:], k=1)[1][0, 0])

    @cached_property
    def reference(self) -> tuple[float, float] | None:
        """Median similarity of two images of one folder, and of two folders; None without folders."""
        some = np.random.default_rng(0).permutation(len(self.table))[:MOST_PAIRS]
        labels = np.array([str(self.labels[row]) for row in some])
        if len(set(labels)) < 2:
            return None
        (gallery,) = zscore_by(self.embeddings)
        unit = gallery[some] / np.maximum(np.linalg.norm(gallery[some], axis=1, keepdims=True), 1e-12)
        pairs = np.triu(np.ones((len(some), len(some)), bool), 1)
        same = pairs & (labels[:, None] == labels[None])
        similarity = unit @ unit.T
        return float(np.median(similarity[same])), float(np.median(similarity[pairs & ~same]))

    def read(self, row: int) -> np.ndarray | None:
        """Read the pixels (H, W) of a row of the table, or None if its file is not known or cannot be read."""
        record: dict[str, Any] = self.table.select(["path", "series", "channel"]).slice(row, 1).to_pylist()[0]
        source = self.sources.get(record["path"])
        if source is None:
            return None
        try:
            images = source.read(record["series"], None)
            names: Sequence[str] = images[0].channel_names
            return np.asarray(images[0].array[names.index(record["channel"]) if record["channel"] in names else 0])
        except (ValueError, OSError):
            return None


def load_index(settings: AppSettings, encoder: Encoder, work: Path) -> Index:
    """Load the index of the settings, or embed the images.

    Args:
        settings: Settings of the app.
        encoder: Encoder of the app.
        work: Folder for the simulated images and the table.

    Raises:
        UserError: If the index does not exist, or was made with another model.
    """
    given = settings.index
    if given is not None and Path(given).is_file():
        table = _read_table(Path(given), encoder)
        images = settings.index_images
        return Index(Path(given).name, table, _sources(images) if images is not None else {})
    images = write_index_images(work / "index") if given is None else given
    table = embed(
        images,
        model=settings.model,
        output=work / "index.parquet",
        device=settings.device,
        precision=settings.precision,
    ).table
    return Index(SIMULATED if given is None else Path(given).name, table, _sources(images))


def _read_table(path: Path, encoder: Encoder) -> pa.Table:
    """Read a table of `embed` with one row per image, made with the encoder.

    Raises:
        UserError: If the file is not such a table.
    """
    dim = encoder.model.config.hidden_size
    try:
        names = pq.read_schema(path).names if path.suffix.lower() == ".parquet" else []
        table = None if "row" in names else read_table(path, embedding_schema(dim, patches=False))
    except (pa.ArrowException, ValueError, KeyError, OSError):
        table = None
    if table is None or not len(table):
        raise UserError(
            f"index {path}: is not a table of `stedfm embed` with {dim} numbers per image; embed the images with the "
            "model of the app"
        )
    if set(table["weights_sha256"].to_pylist()) != {encoder.weights_sha256}:
        raise UserError(
            f"index {path}: was made with the model {table['model'][0].as_py()}, and the app runs {encoder.name}; "
            "embed the images again, or give that model with --model"
        )
    return table


def _sources(images: str | Path) -> dict[str, Source]:
    return {source.path: source for source in find_sources(images)[0]}
