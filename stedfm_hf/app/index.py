"""Index of the app: an index of `stedfm index`, or one made of images or a table; and votes of the nearest images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.app.examples import write_index_images
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.data.sources import find_sources
from stedfm_hf.discovery.index import index, opened
from stedfm_hf.discovery.index.building import add_images
from stedfm_hf.discovery.index.table_input import open_table_input
from stedfm_hf.discovery.search.images import nearest_images
from stedfm_hf.discovery.settings import IndexSettings, is_index
from stedfm_hf.inference import Encoder
from stedfm_hf.runs import UserError

SIMULATED = "the simulated example images"
MOST_PAIRS = 500
"""Largest number of images whose pairs are compared for the reference similarities."""


@dataclass(frozen=True, eq=False)
class Index:
    """Embedded images.

    Attributes:
        name: What the images are, for sentences.
        opened: Index of images.
    """

    name: str
    opened: opened.Index

    @property
    def labels(self) -> list[str | None]:
        """Name of the folder of each image; None if they are not in folders."""
        return self.opened.labels

    def search(self, embedding: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the most similar images.

        Features are standardised over the index, as in `stedfm evaluate knn`.

        Args:
            embedding: Embedding (D,).
            k: Number of images.

        Returns:
            Numbers of the items (k,) and their cosine similarities (k,), the most similar first.
        """
        return nearest_images(self.opened, self.opened.standardiser(embedding), k)

    def found(self, items: np.ndarray, similarity: np.ndarray) -> pa.Table:
        """Return the table of the result of `search`: path, series, channel, model, folder and similarity."""
        table = self.opened.items.select(["path", "series", "channel", "pixel_size_nm"]).take(pa.array(items))
        manifest = self.opened.manifest
        for name, values in (
            ("model", [manifest.model] * len(items)),
            ("weights_sha256", [manifest.weights_sha256] * len(items)),
            ("folder", [self.labels[number] for number in items]),
        ):
            table = table.append_column(name, pa.array(values, pa.string()))
        return table.append_column("similarity", pa.array(similarity, pa.float64()))

    def votes(self, items: np.ndarray) -> Counter[str]:
        """Count the folders of some items."""
        return Counter(label for number in items if (label := self.labels[number]) is not None)

    def similarity(self, first: np.ndarray, second: np.ndarray) -> float:
        """Return the cosine similarity of two embeddings (D,), standardised over the index."""
        one, other = self.opened.standardiser.unit(np.stack([first, second]))
        return float(one @ other)

    @cached_property
    def reference(self) -> tuple[float, float] | None:
        """Median similarity of two images of one folder, and of two folders; None without folders."""
        some = np.random.default_rng(0).permutation(len(self.opened))[:MOST_PAIRS]
        labels = np.array([str(self.labels[number]) for number in some])
        if len(set(labels)) < 2:
            return None
        unit = self.opened.standardiser.unit(np.stack([self.opened.embeddings(int(each))[0, 0] for each in some]))
        pairs = np.triu(np.ones((len(some), len(some)), bool), 1)
        same = pairs & (labels[:, None] == labels[None])
        similarity = unit @ unit.T
        return float(np.median(similarity[same])), float(np.median(similarity[pairs & ~same]))

    def read(self, number: int) -> np.ndarray | None:
        """Read the pixels (H, W) of an item, or None if its file is not known or cannot be read."""
        image = self.opened.read(number)
        return None if image is None else np.asarray(image.array[0])


def load_index(settings: AppSettings, encoder: Encoder, work: Path) -> Index:
    """Open the index of the settings, or index the images or the table.

    Args:
        settings: Settings of the app.
        encoder: Encoder of the app.
        work: Folder for the simulated images and the index.

    Raises:
        UserError: If the index does not exist, or was made with another model.
    """
    given = settings.index
    if given is not None and is_index(given):
        return _checked(Path(given).name, opened.open_index(given, settings.index_images), encoder, given)
    made = work / "made-index"
    if given is not None and Path(given).is_file():
        _check_table(given, encoder)
        index(given, output=made, images=settings.index_images, overwrite=True)
        return _checked(Path(given).name, opened.open_index(made), encoder, given)
    images = write_index_images(work / "index") if given is None else given
    # With the encoder of the app, whose forward passes stop when the app does.
    add_images(IndexSettings(images, output=made), find_sources(images), encoder)
    return Index(SIMULATED if given is None else Path(given).name, opened.open_index(made))


def _check_table(path: str | Path, encoder: Encoder) -> None:
    """Refuse a file that is not a table of embeddings of images as long as those of the encoder.

    Raises:
        UserError: If the file is not such a table.
    """
    dim = encoder.model.config.hidden_size
    try:
        table = open_table_input(path)
        fits = table.dim == dim and table.pooling == "avg"
    except UserError as error:
        raise UserError(f"index {error}") from error
    if not fits:
        raise UserError(
            f"index {path}: is not a table of `stedfm embed` with {dim} numbers per image; embed the images with the "
            "model of the app"
        )


def _checked(name: str, found: opened.Index, encoder: Encoder, given: str | Path) -> Index:
    """Return an index of images of the encoder.

    Raises:
        UserError: If the index holds patches, or embeddings of another model.
    """
    if found.patches:
        raise UserError(f"index {given}: holds patches; make an index of images, without --patches")
    if found.manifest.weights_sha256 != encoder.weights_sha256:
        raise UserError(
            f"index {given}: was made with the model {found.manifest.model}, and the app runs {encoder.name}; "
            "embed the images again, or give that model with --model"
        )
    return Index(name, found)
