"""The figures of the demo's report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from stedfm_hf.demo.material import Picture
from stedfm_hf.demo.scores import Scores
from stedfm_hf.metrics import nearest
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.reports.figures import (
    INK,
    MUTED,
    PALETTE,
    label_colours,
    legend,
    middle,
    scatter_images,
    show_image,
    style,
)
from stedfm_hf.reports.reconstructions import Reconstruction, draw_reconstructions, spread_over_pixels
from stedfm_hf.training.quick import QuickResult

UNLABELLED = PALETTE[0]


def reconstruct(
    model: StedFmForPreTraining, pictures: Sequence[Picture], *, side: int = 192, seed: int = 0
) -> list[Reconstruction]:
    """Masks the middle of pictures and lets the network fill it, tile by tile of the size it was trained on.

    Args:
        model: a masked autoencoder.
        pictures: what to reconstruct.
        side: side of the region in pixels, rounded down to whole tiles; at least one tile.
        seed: of the masks.

    Returns:
        One reconstruction for each picture.
    """
    tile, patch = model.config.image_size, model.config.patch_size
    count = max(1, side // tile)
    results = []
    for number, picture in enumerate(pictures):
        square = middle(picture.pixels, tile * count)
        tiles = max(1, square.shape[0] // tile)
        square = middle(square, tile * tiles) if square.shape[0] >= tile else _mirrored(square, tile)
        stack = square.reshape(tiles, tile, tiles, tile).transpose(0, 2, 1, 3).reshape(-1, 1, tile, tile)
        pixels = torch.from_numpy(np.ascontiguousarray(stack))
        noise = torch.rand(len(stack), (tile // patch) ** 2, generator=torch.Generator().manual_seed(seed + number))
        with torch.inference_mode():
            output = model(pixels, noise=noise)
            filled = model.reconstruct(pixels, output)[:, 0].numpy()
        mask = spread_over_pixels(output.mask.numpy(), (tile // patch, tile // patch), patch)

        def whole(parts: np.ndarray, tiles: int = tiles) -> np.ndarray:
            return parts.reshape(tiles, tiles, tile, tile).transpose(0, 2, 1, 3).reshape(tiles * tile, tiles * tile)

        seen = np.ma.masked_array(square, whole(mask))
        results.append(Reconstruction(square, seen, whole(filled), picture.label, picture.pixel_size_nm))
    return results


def _mirrored(image: np.ndarray, side: int) -> np.ndarray:
    return np.pad(image, [(0, side - length) for length in image.shape], mode="symmetric")


def one_of_each(pictures: Sequence[Picture], *, most: int, part: str | None = None) -> list[int]:
    """Places of some pictures, taken in turn from the labels in order of file: not picked by how they come out.

    Example:
        >>> blank = np.zeros((2, 2))
        >>> one_of_each([Picture(name, blank, None, name[0], "all") for name in ("a1", "a2", "b1")], most=2)
        [0, 2]
    """
    groups: dict[str | None, list[int]] = {}
    for place, picture in enumerate(pictures):
        if part is None or picture.part == part:
            groups.setdefault(picture.label, []).append(place)
    if list(groups) == [None]:
        places = groups[None]
        return [places[k * len(places) // min(most, len(places))] for k in range(min(most, len(places)))]
    turns = [group[turn] for turn in range(most) for group in groups.values() if turn < len(group)]
    return sorted(turns[:most])


def place_on_map(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Positions (n, 2) of vectors on a plane, and how they were found: t-SNE, for few vectors PCA."""
    if len(vectors) < 3:
        return np.stack([np.arange(len(vectors)), np.zeros(len(vectors))], axis=1).astype(float), "order"
    reduced = PCA(min(50, *vectors.shape), svd_solver="full", random_state=seed).fit_transform(vectors)
    if len(vectors) < 30:
        return reduced[:, :2], "PCA"
    perplexity = min(30.0, len(vectors) / 5)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced), "t-SNE"


def _colours(pictures: Sequence[Picture]) -> tuple[list[str], dict[str, str]]:
    named = label_colours(picture.label for picture in pictures if picture.label is not None)
    return [named.get(picture.label or "", UNLABELLED) for picture in pictures], named


def draw_map(axes: Axes, pictures: Sequence[Picture], places: np.ndarray) -> None:
    """Every image at the place of its vector, with a picture of it where there is room."""
    colours, named = _colours(pictures)
    scatter_images(axes, places, [picture.pixels for picture in pictures], colours)
    if named:
        legend(axes, named, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(4, len(named)), fontsize=9.5)


def map_figure(pictures: Sequence[Picture], places: np.ndarray) -> Figure:
    """The map alone."""
    with style():
        figure = Figure(figsize=(8.0, 7.0))
        figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.06)
        draw_map(figure.subplots(), pictures, places)
        return figure


def overview_figure(
    reconstructions: Sequence[Reconstruction], pictures: Sequence[Picture], places: np.ndarray
) -> Figure:
    """Reconstructions on the left, the map on the right."""
    with style():
        figure = Figure(figsize=(9.8, 1.27 * len(reconstructions) + 0.32))
        halves = figure.add_gridspec(1, 2, width_ratios=(1.0, 1.45))
        left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
        left.subplots_adjust(left=0.06, right=0.99, top=0.94, bottom=0.01)
        draw_reconstructions(left, reconstructions)
        right.subplots_adjust(left=0.03, right=0.99, top=0.94, bottom=0.07)
        axes = right.subplots()
        draw_map(axes, pictures, places)
        axes.set_title("map of the embeddings: each dot is an image")
        return figure


def neighbour_figure(pictures: Sequence[Picture], vectors: np.ndarray, *, rows: int = 6, k: int = 6) -> Figure:
    """Some images and those nearest to them by cosine, framed in the colour of their label."""
    split = any(picture.part == "query" for picture in pictures)
    asked = one_of_each(pictures, most=rows, part="query" if split else None)
    pool = [place for place, picture in enumerate(pictures) if not split or picture.part == "gallery"]
    k = min(k, len(pool) - (0 if split else 1))
    paths = np.array([picture.path for picture in pictures])
    found, similarity = nearest(
        vectors[pool],
        vectors[asked],
        k=k,
        gallery_sources=paths[pool].tolist(),
        query_sources=paths[asked].tolist(),
    )
    colours, named = _colours(pictures)
    with style():
        figure = Figure(figsize=(1.25 * (k + 1) + 0.3, 1.25 * len(asked) + 0.5))
        ratios = [1.0, 0.12, *[1.0] * k]
        axes = figure.subplots(
            len(asked), k + 2, squeeze=False, width_ratios=ratios, gridspec_kw={"wspace": 0.06, "hspace": 0.06}
        )
        for row, query, neighbours, alike in zip(axes, asked, found, similarity, strict=True):
            row[1].set_axis_off()
            frame = colours[query] if named else None
            show_image(row[0], middle(pictures[query].pixels, 224), frame=frame)
            for cell, neighbour, value in zip(row[2:], neighbours, alike, strict=True):
                if not np.isfinite(value):
                    cell.set_axis_off()
                    continue
                place = pool[neighbour]
                show_image(cell, middle(pictures[place].pixels, 224), frame=colours[place] if named else None)
        axes[0, 0].set_title("image")
        for rank, cell in enumerate(axes[0, 2:], start=1):
            cell.set_title("nearest" if rank == 1 else str(rank))
        if named:
            handles = Axes(figure, (0.125, 0.02, 0.775, 0.05))
            handles.set_axis_off()
            figure.add_axes(handles)
            legend(handles, named, loc="center", ncols=min(6, len(named)))
        return figure


def loss_figure(result: QuickResult) -> Figure:
    """Loss over time beside that of a constant prediction."""
    with style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        train = [(point.seconds, point.loss) for point in result.train_loss]
        if train:
            axes.plot(*zip(*train, strict=True), color="#B6C1CC", lw=1.2, label="training, mean of 10 steps")
        held = [(point.seconds, point.loss) for point in result.held_out_loss]
        axes.plot(*zip(*held, strict=True), "o-", color=PALETTE[0], markersize=4.5, label="held-out")
        axes.axhline(
            result.constant_loss, color=PALETTE[1], ls=(0, (5, 3)), lw=1.5, label="held-out, mean pixel predicted"
        )
        everything = [loss for _, loss in train + held]
        low, high = min(everything), max(result.constant_loss, *(loss for _, loss in held))
        axes.set(xlabel="seconds of training", ylabel="loss (mean squared error)", xlim=(0, held[-1][0] * 1.01))
        axes.set_ylim(max(0.0, low - 0.1 * (high - low)), high + 0.1 * (high - low))
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.2, handlelength=1.6)
        return figure


def accuracy_figure(scores: Scores) -> Figure:
    """Accuracy of every method with its 95 % interval, and chance."""
    with style():
        figure = Figure(figsize=(6.4, 0.42 * len(scores.methods) + 0.9), layout="constrained")
        axes = figure.subplots()
        for place, method in enumerate(scores.methods):
            result = method.result
            colour = PALETTE[0] if place == 0 else MUTED
            axes.plot([result.low, result.high], [place, place], color=colour, lw=2.2, solid_capstyle="round")
            axes.plot(result.accuracy, place, "o", color=colour, markersize=8)
            axes.annotate(
                f"{100 * result.accuracy:.0f} %",
                (result.accuracy, place),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                color=colour,
                fontweight="bold" if place == 0 else "normal",
            )
        axes.axvline(scores.chance, color=PALETTE[1], ls=(0, (5, 3)), lw=1.5)
        axes.annotate(
            "chance",
            (scores.chance, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            color=PALETTE[1],
        )
        axes.set_yticks(range(len(scores.methods)), [method.name for method in scores.methods], color=INK)
        axes.set_ylim(len(scores.methods) - 0.5, -0.8)
        axes.set(xlim=(0, 1), xlabel="accuracy of the nearest-neighbour vote")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return figure
