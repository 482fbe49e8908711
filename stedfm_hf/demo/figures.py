"""Figures of the demo: a map of the embeddings, and images with their nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from stedfm_hf.data.building.labels import folder_labels
from stedfm_hf.data.repository.files import find_split
from stedfm_hf.data.sources import find_sources
from stedfm_hf.evaluation import zscore_by
from stedfm_hf.inference import load_encoder
from stedfm_hf.metrics.neighbours import nearest
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.reports.figures import (
    PALETTE,
    label_colours,
    legend,
    middle,
    save_figure,
    scatter_images,
    show_image,
    style,
)
from stedfm_hf.reports.reconstructions import Reconstruction, plot_reconstructions
from stedfm_hf.training.held_out_evaluation import find_held_out_crops
from stedfm_hf.training.preparation import Preparation

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_PX = 224
"""Largest size of an image in a figure, in pixels; larger images are cropped to their centre."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """Images with their embeddings.

    Attributes:
        paths: Path of the file of each image.
        pixels: Pixels (H, W) of each image in [0, 1]; large images are cropped to their centre.
        labels: Label of each image, or None.
        embeddings: Embeddings (n, D), divided by the standard deviation of every feature.
        queries: Whether each image is in the test split, (n,) bool; all True without splits.
    """

    paths: Sequence[str]
    pixels: Sequence[np.ndarray]
    labels: Sequence[str | None]
    embeddings: np.ndarray
    queries: np.ndarray


def save_figures(
    folder: Path, table: pa.Table, images: Path, model: str, *, simulated: bool, seed: int, data: Path | None
) -> None:
    """Write the figures `map`, `neighbours` and, for a model trained here, `overview`, as PNG and SVG.

    Args:
        folder: Folder of the figures.
        table: Table of embeddings.
        images: Folder of the embedded images.
        model: Model that embedded them; its processor scales the images of the figures.
        simulated: Whether the images are simulated and have splits.
        seed: Random seed of the map.
        data: Data set on which the model was trained, or None.
    """
    shown = read_embedded(table, images, load_encoder(model, device="cpu").processor, simulated=simulated)
    positions, method = project(shown.embeddings[shown.queries], seed)
    save_figure(map_figure(shown, positions, method), folder, "map")
    if data is not None and (filled := reconstruct(model, data)):
        save_figure(overview_figure(filled, shown, positions), folder, "overview")
    if len(set(shown.paths)) > 1:
        save_figure(neighbour_figure(shown), folder, "neighbours")


def reconstruct(model: str, data: Path) -> list[Reconstruction]:
    """Reconstruct some held-out crops with a masked autoencoder."""
    network = StedFmForPreTraining.from_pretrained(model).eval()
    config = network.config
    preparation = Preparation(0, image_size=config.image_size, patches=(config.image_size // config.patch_size) ** 2)
    held_out = find_held_out_crops([find_split(data, "train")], preparation, report=lambda line: None)
    return [] if held_out is None else held_out.reconstructions(network, max_crops=4)


def read_embedded(table: pa.Table, images: Path, processor: StedFmImageProcessor, *, simulated: bool) -> Embedded:
    """Read the image of every row of a table again, scaled as `embed` scales it."""
    rows = table.select(["path", "series", "channel"]).to_pylist()
    files = {source.path: source for source in find_sources([images])[0]}
    read: dict[tuple[str, str, str], np.ndarray] = {}
    for path in dict.fromkeys(row["path"] for row in rows):
        for image in files[path].read(None, None):
            planes = processor.prepare(image, channel=None)
            for name, plane in zip(image.channel_names, planes, strict=True):
                read[path, image.series, name] = middle(plane, min(SHOWN_PX, max(plane.shape)))
    paths = [row["path"] for row in rows]
    test = np.array([path.startswith("test/") for path in paths]) if simulated else np.ones(len(paths), bool)
    embeddings = np.asarray(table["embedding"].to_pylist(), np.float64)
    return Embedded(
        paths,
        [read[row["path"], row["series"], row["channel"]] for row in rows],
        folder_labels(paths, simulated=simulated),
        zscore_by(embeddings[~test] if simulated else embeddings, embeddings)[1],
        test,
    )


def project(embeddings: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Project embeddings (n, D) to positions (n, 2), and return the method: t-SNE, or PCA for few images."""
    if len(embeddings) < 3:
        return np.stack([np.arange(len(embeddings)), np.zeros(len(embeddings))], axis=1).astype(float), "order"
    reduced = PCA(min(50, *embeddings.shape), svd_solver="full", random_state=seed).fit_transform(embeddings)
    if len(embeddings) < 30:
        return reduced[:, :2], "PCA"
    perplexity = min(30.0, len(embeddings) / 5)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced), "t-SNE"


def plot_map(axes: Axes, shown: Embedded, positions: np.ndarray, title: str) -> None:
    """Plot every query image at the position of its embedding, with thumbnails of some."""
    queries = np.flatnonzero(shown.queries).tolist()
    colours, named = _colours(shown)
    scatter_images(axes, positions, [shown.pixels[each] for each in queries], [colours[each] for each in queries])
    axes.set_title(title)
    if named:
        legend(axes, named, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(4, len(named)), fontsize=9.5)


def map_figure(shown: Embedded, positions: np.ndarray, method: str) -> Figure:
    """Return a figure of the map."""
    with style():
        figure = Figure(figsize=(8.0, 7.0))
        figure.subplots_adjust(left=0.01, right=0.99, top=0.95, bottom=0.06)
        plot_map(figure.subplots(), shown, positions, f"{method} of the embeddings: each dot is an image")
        return figure


def overview_figure(filled: Sequence[Reconstruction], shown: Embedded, positions: np.ndarray) -> Figure:
    """Return a figure with reconstructions on the left and the map on the right."""
    with style():
        figure = Figure(figsize=(9.8, 1.27 * len(filled) + 0.32))
        halves = figure.add_gridspec(1, 2, width_ratios=(1.0, 1.45))
        left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
        left.subplots_adjust(left=0.06, right=0.99, top=0.94, bottom=0.01)
        plot_reconstructions(left, filled)
        right.subplots_adjust(left=0.03, right=0.99, top=0.94, bottom=0.07)
        plot_map(right.subplots(), shown, positions, "map of the embeddings: each dot is an image")
        return figure


def neighbour_figure(shown: Embedded, *, rows: int = 6, k: int = 6) -> Figure:
    """Return a figure of some images and their nearest neighbours by cosine similarity, framed by label."""
    queries = one_of_each(shown, most=rows)
    gallery = np.flatnonzero(~shown.queries) if not shown.queries.all() else np.arange(len(shown.paths))
    paths = np.array(shown.paths)
    found, similarity = nearest(
        shown.embeddings[gallery],
        shown.embeddings[queries],
        k=min(k, len(gallery) - bool(shown.queries.all())),
        gallery_sources=paths[gallery].tolist(),
        query_sources=paths[queries].tolist(),
    )
    colours, named = _colours(shown)
    k = found.shape[1]
    with style():
        figure = Figure(figsize=(1.25 * (k + 1) + 0.3, 1.25 * len(queries) + 0.5))
        axes = figure.subplots(len(queries), k + 1, squeeze=False, gridspec_kw={"wspace": 0.06, "hspace": 0.06})
        for row, query, neighbours, similarities in zip(axes, queries, found, similarity, strict=True):
            show_image(row[0], shown.pixels[query], frame=colours[query] if named else None)
            for cell, neighbour, value in zip(row[1:], neighbours, similarities, strict=True):
                if np.isfinite(value):
                    number = int(gallery[neighbour])
                    show_image(cell, shown.pixels[number], frame=colours[number] if named else None)
                else:
                    cell.set_axis_off()
        axes[0, 0].set_title("image")
        axes[0, 1].set_title("nearest")
        if named:
            handles = Axes(figure, (0.125, 0.02, 0.775, 0.05))
            handles.set_axis_off()
            figure.add_axes(handles)
            legend(handles, named, loc="center", ncols=min(6, len(named)))
        return figure


def one_of_each(shown: Embedded, *, most: int) -> list[int]:
    """Return indices of some query images, in turn from each label: not selected by their results."""
    groups: dict[str | None, list[int]] = {}
    for number in np.flatnonzero(shown.queries).tolist():
        groups.setdefault(shown.labels[number], []).append(number)
    turns = [group[turn] for turn in range(most) for group in groups.values() if turn < len(group)]
    return sorted(turns[:most])


def _colours(shown: Embedded) -> tuple[list[str], dict[str, str]]:
    named = label_colours(label for label in shown.labels if label is not None)
    return [named.get(label or "", PALETTE[0]) for label in shown.labels], named
