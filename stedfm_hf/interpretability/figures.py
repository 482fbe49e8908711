"""Figures of explanations: the image next to its map, or next to the image that it is compared with."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stedfm_hf.inference.overlay import thumbnail
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.interpretability.explainers import Explanation
from stedfm_hf.reports.figures import FIGURE_DPI, IMAGE_MAP, PALETTE, show_image, style
from stedfm_hf.runs import atomic_path

MOST_PIXELS = 800
"""Largest dimension of an image in a figure, in pixels."""
PAIRS = 12
"""Number of corresponding patches in a figure."""
SMALLEST = 8
"""Size of the smallest frame, in pixels of the figure."""
QUERY = "#56B4E9"
"""Colour of the frame around the patch whose attention is shown."""
DIVERGING = LinearSegmentedColormap.from_list("against and for", ["#3FB4FF", "#14181D", "#FF5533"])
"""Colour map of evidence against and for a class, dark where there is none."""
OPACITY = 0.8
"""Opacity of the largest values of a map on the image."""


def write_figure(path: Path, fact: Fact, pixels: np.ndarray, found: Explanation, unit: str) -> None:
    """Write the figure of an explained image as PNG.

    Args:
        path: File to write.
        fact: Facts about the image.
        pixels: Image (C, H, W), scaled.
        found: Explanation.
        unit: Quantity that the map shows.
    """
    height, width = pixels.shape[1:]
    aspect = min(max(height / width, 0.25), 4.0)
    size = fact["pixel_size_nm"]
    image = _small(pixels)
    with style():
        figure = Figure(figsize=(7.4, 3.1 * aspect + 0.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        show_image(left, image, colour_map="gray", pixel_size_nm=size and size[1] * fact["width"] / image.shape[1])
        left.set_title(f"{fact['path']}, {fact['channel']}"[-44:], parse_math=False)
        if found.reference is not None and found.pairs is not None:
            shown = _small(found.reference)
            show_image(right, shown, colour_map="gray")
            pairs = distinct_pairs(found.pairs, found.values.shape[1:])
            _mark_pairs(left, pairs[:, :2], found.cell * image.shape[0] / height)
            _mark_pairs(right, pairs[:, 2:], found.cell * shown.shape[0] / found.reference.shape[1])
        else:
            show_image(right, image, colour_map="gray")
            colours = _show_map(right, found, image.shape[0] / height, (image.shape[0], image.shape[1]))
            if colours is not None:
                figure.colorbar(colours, ax=right, shrink=0.85, label=unit)
        right.set_title(found.title, parse_math=False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=FIGURE_DPI, metadata={"Software": None})


def _small(pixels: np.ndarray) -> np.ndarray:
    """Return the first channel of an image (C, H, W), read in bands, with at most `MOST_PIXELS` in each direction."""
    height, width = pixels.shape[1:]
    factor = math.ceil(max(height, width) / MOST_PIXELS)
    return thumbnail(lambda top, bottom: pixels[:, top:bottom][0], (height, width), factor)


def _show_map(axes: Axes, found: Explanation, scale: float, shape: tuple[int, int]) -> ScalarMappable | None:
    """Show a map, or its red, green and blue, on an image of `shape`; return the colours of a map."""
    shown = map_colours(found)
    colours = ScalarMappable(*colours_of(found)) if found.colours is None else None
    height, width = shape
    rows, cols = shown.shape[:2]
    extent = (-0.5, cols * found.cell * scale - 0.5, rows * found.cell * scale - 0.5, -0.5)
    axes.imshow(shown, interpolation="nearest", extent=extent)
    # The last patches reach over the border: cut where the image ends.
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if colours is not None:
        row, col = peak_of(found.values[0]) if found.query is None else found.query
        _outline(axes, row, col, max(found.cell * scale, SMALLEST), "white" if found.query is None else QUERY)
    return colours


def map_colours(found: Explanation) -> np.ndarray:
    """Return the colours that show the map of an explanation over its image.

    Args:
        found: Explanation.

    Returns:
        Red, green, blue and opacity (rows, cols, 4) in [0, 1]. Large values are opaque, small ones and NaN are clear;
        where 0 is the middle of the colours, values near it are clear.
    """
    if found.colours is not None:
        known = np.isfinite(found.colours).all(axis=2)
        return np.dstack([np.where(known[..., None], found.colours, 0), known])
    norm, colour_map = colours_of(found)
    values = norm(np.ma.masked_invalid(found.values[0]))
    shown: np.ndarray = colour_map(values)
    strength = np.abs(2 * values - 1) if is_diverging(found) else values
    shown[..., 3] = OPACITY * np.ma.filled(strength, 0.0).clip(0, 1)
    return shown


def is_diverging(found: Explanation) -> bool:
    """Return whether 0 is the middle of the colours of a map."""
    return found.limits is not None and found.limits[0] == -found.limits[1]


def colours_of(found: Explanation) -> tuple[Normalize, Colormap]:
    """Return the range and the colour map of the first map of an explanation."""
    low, high = limits_of(found)
    return Normalize(low, high, clip=True), DIVERGING if is_diverging(found) else matplotlib.colormaps[IMAGE_MAP]


def limits_of(found: Explanation) -> tuple[float, float]:
    """Return the values shown as the ends of the colours: those of the explanation, or minimum and maximum."""
    known = found.values[np.isfinite(found.values)]
    low, high = found.limits or ((float(known.min()), float(known.max())) if known.size else (0.0, 1.0))
    return (low, high) if low < high else (low, low + 1.0)


def peak_of(values: np.ndarray) -> tuple[int, int]:
    """Return the row and the column of the largest value of a map (rows, cols); NaN is ignored."""
    row, col = np.unravel_index(np.argmax(np.where(np.isfinite(values), values, -np.inf)), values.shape)
    return int(row), int(col)


def _mark_pairs(axes: Axes, pairs: np.ndarray, cell: float) -> None:
    """Mark and number patches, given by their rows and columns (n, 2)."""
    for number, (row, col) in enumerate(pairs, start=1):
        colour = PALETTE[(number - 1) % len(PALETTE)]
        _outline(axes, row, col, cell, colour)
        text = axes.annotate(
            str(number),
            ((col + 1) * cell - 0.5, row * cell - 0.5),
            (1, 1),
            textcoords="offset points",
            color="white",
            fontsize=7.5,
            fontweight="bold",
        )
        text.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground=colour)])


def distinct_pairs(pairs: np.ndarray, shape: tuple[int, ...], most: int = PAIRS) -> np.ndarray:
    """Select the most similar pairs whose patches in the image are apart from each other.

    Args:
        pairs: Rows and columns (n, 4) of corresponding patches, the most similar first.
        shape: Rows and columns of the patches of the image.
        most: Largest number of pairs.

    Returns:
        Selected pairs (at most `most`, 4), in their order.

    Example:
        >>> distinct_pairs(np.array([[0, 0, 0, 0], [0, 1, 0, 1], [9, 9, 9, 9]]), (10, 10)).tolist()
        [[0, 0, 0, 0], [9, 9, 9, 9]]
    """
    distance = max(shape) / 8
    chosen: list[np.ndarray] = []
    for pair in pairs:
        if len(chosen) == most:
            break
        if all(np.hypot(*(pair[:2] - other[:2])) >= distance for other in chosen):
            chosen.append(pair)
    return np.array(chosen, int).reshape(-1, 4)


def _outline(axes: Axes, row: float, col: float, cell: float, colour: str) -> None:
    """Mark the patch at a row and a column."""
    axes.add_patch(Rectangle((col * cell - 0.5, row * cell - 0.5), cell, cell, fill=False, ec=colour, lw=1.4))
