"""Figure of a field with its regions, next to its score maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from stedfm_hf.acquisition.regions import Region
from stedfm_hf.discovery.search.place_files import mark_box
from stedfm_hf.inference.overlay import thumbnail
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.reports.figures import FIGURE_DPI, label_colours, shortened, show_image, style
from stedfm_hf.runs import atomic_path

MOST_PIXELS = 1024
"""Largest dimension of the field in the figure, in pixels."""
MOST_MAPS = 5
"""Largest number of score maps in the figure; the TIFF holds all."""


def write_figure(
    path: Path,
    fact: Fact,
    pixels: np.ndarray,
    values: np.ndarray,
    names: Sequence[str],
    regions: Mapping[str, Mapping[int, Region]],
    quantity: str,
    limits: tuple[float, float],
) -> None:
    """Write the figure of a field as PNG.

    Args:
        path: File to write.
        fact: Facts about the image.
        pixels: Image (C, H, W), scaled.
        values: Score maps (L, rows, cols).
        names: Names of the maps.
        regions: Regions of each class by rank; the number in the figure is the rank.
        quantity: Quantity that the maps show.
        limits: Values at the ends of the colours.
    """
    height, width = pixels.shape[1:]
    factor = math.ceil(max(height, width) / MOST_PIXELS)
    image = thumbnail(lambda top, bottom: pixels[:, top:bottom][0], (height, width), factor)
    size, shown = fact["pixel_size_nm"], min(len(values), MOST_MAPS)
    columns = min(3, shown + 1)
    lines = math.ceil((shown + 1) / columns)
    aspect = min(max(height / width, 0.25), 4.0)
    # The figure shows the input of the model; regions are in pixels of the file.
    scale = factor * fact["height"] / height
    colours = label_colours(regions)
    with style():
        figure = Figure(figsize=(4.4 * columns, (4.0 * aspect + 0.5) * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False)
        first, *others = panels.flat
        show_image(first, image, colour_map="gray", pixel_size_nm=size and size[1] * fact["width"] / image.shape[1])
        first.set_title(shortened(f"{fact['path']}: regions by rank", 56), parse_math=False)
        for name, found in regions.items():
            for rank, region in found.items():
                mark_box(first, str(rank), region.box, scale, colours[name])
        extent = (-0.5, values.shape[2] - 0.5, values.shape[1] - 0.5, -0.5)
        cols, rows = _cells(values.shape[2], width, fact), _cells(values.shape[1], height, fact)
        for axes, name, plane in zip(others, names, values, strict=False):
            heat = axes.imshow(
                plane, cmap="inferno", vmin=limits[0], vmax=limits[1], interpolation="nearest", extent=extent
            )
            # The last cells reach over the border: cut where the field ends.
            axes.set(xlim=(-0.5, cols - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(name, parse_math=False, color=colours.get(name, "black"))
            figure.colorbar(heat, ax=axes, shrink=0.85, label=quantity)
        for axes in others[shown:]:
            axes.set_axis_off()
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=FIGURE_DPI, metadata={"Software": None})


def _cells(count: int, length: int, fact: Fact) -> float:
    """Return the number of cells of a map that cover the image exactly."""
    cell: int = fact["cell"]
    return min(float(count), length / cell)
