"""Figure of a field with its regions, next to its score maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stedfm_hf.acquisition.regions import Region
from stedfm_hf.discovery.search.place_files import CORNERS, mark_box
from stedfm_hf.inference.overlay import thumbnail
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.reports.figures import FIGURE_DPI, label_colours, shortened, show_image, style
from stedfm_hf.runs import atomic_path

MOST_PIXELS = 1024
"""Largest dimension of the field in the figure, in pixels."""
MOST_MAPS = 5
"""Largest number of score maps in the figure; the TIFF holds all."""
MOST_REGIONS = 10
"""Largest number of regions of each class in the figure; the table holds all."""


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
        best = f"best {MOST_REGIONS} " if max(map(len, regions.values()), default=0) > MOST_REGIONS else ""
        each = " of each class" if best and len(regions) > 1 else ""
        first.set_title(f"{shortened(fact['path'], 56)}\n{best}regions{each} by rank", parse_math=False)
        mark_regions(first, regions, scale)
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


def mark_regions(axes: Axes, regions: Mapping[str, Mapping[int, Region]], factor: float) -> None:
    """Mark the best regions of each class with their ranks; each class has its own colour and corner for the rank.

    Args:
        axes: Axes that show an image.
        regions: Regions of each class by rank, the best first.
        factor: Number of pixels of the file in a pixel of the shown image.
    """
    for number, (name, colour) in enumerate(label_colours(regions).items()):
        for rank, region in islice(regions[name].items(), MOST_REGIONS):
            mark_box(axes, str(rank), region.box, factor, colour, corner=CORNERS[number % len(CORNERS)])


def _cells(count: int, length: int, fact: Fact) -> float:
    """Return the number of cells of a map that cover the image exactly."""
    cell: int = fact["cell"]
    return min(float(count), length / cell)
