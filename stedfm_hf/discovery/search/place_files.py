"""Files of places: maps of similarities, overlays, a contact sheet, ROIs for Fiji and points for napari."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stedfm_hf.discovery.search.places import Place
from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.discovery.search.thumbnails import MARK, plane_of, show_thumbnail
from stedfm_hf.images import StedImage
from stedfm_hf.inference.maps import write_map_tiff
from stedfm_hf.inference.overlay import thumbnail
from stedfm_hf.reports.figures import FIGURE_DPI, shortened, show_image, style
from stedfm_hf.runs import atomic_path

QUERY = "#56B4E9"
"""Colour of the rectangle around an example."""
COLUMNS = 6
"""Places in a row of the contact sheet."""
OVERLAY_PIXELS = 1024
"""Largest size of the image in an overlay, in pixels."""
CORNERS = (("top", "left"), ("bottom", "right"), ("top", "right"), ("bottom", "left"))
"""Corners of a rectangle for its text."""


class ScoredBox(Protocol):
    """Rectangle in an image with a score, such as a `Place`."""

    @property
    def score(self) -> float:
        """Score."""

    @property
    def box(self) -> Box:
        """Rectangle, in pixels of the file."""


def write_contact_sheet(path: Path, places: Sequence[Place], images: Mapping[int, StedImage | None]) -> None:
    """Write a figure with the places in rows, each with its rank and score.

    Args:
        path: PNG to write.
        places: Places, the most similar first.
        images: Image of each item, or None if its file is not found.
    """
    rows = max(1, -(-len(places) // COLUMNS))
    with style():
        figure = Figure(figsize=(1.5 * COLUMNS, 1.72 * rows), layout="constrained")
        axes = figure.subplots(rows, COLUMNS, squeeze=False)
        for each in axes.flat[len(places) :]:
            each.set_axis_off()
        for rank, (each, place) in enumerate(zip(axes.flat, places, strict=False), 1):
            show_thumbnail(each, images[place.item], crop=place.box)
            each.set_title(f"{rank}:  {place.score:.2f}", fontsize=8.5)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=FIGURE_DPI, metadata={"Software": None})


def write_similarity_map(path: Path, values: np.ndarray, item: Mapping[str, Any]) -> None:
    """Write a map of similarities as TIFF for ImageJ, with the pixel size of the patches.

    Args:
        path: TIFF to write.
        values: Similarity of every patch (rows, cols).
        item: Columns of the item.
    """
    cell = (item["patch_height_px"], item["patch_width_px"])
    limits = (float(values.min()), float(values.max()))
    write_map_tiff(path, values[None].astype(np.float32), ["similarity"], limits, cell, dict(item))


def write_overlay(
    path: Path,
    image: StedImage,
    values: np.ndarray,
    item: Mapping[str, Any],
    places: Mapping[int, Place],
    queries: Sequence[Box] = (),
) -> None:
    """Write a figure of an image with its places, next to the map of similarities.

    Args:
        path: PNG to write.
        image: The image with its channel.
        values: Similarity of every patch (rows, cols).
        item: Columns of the item.
        places: Places in the image, by rank.
        queries: Regions of the image that are examples.
    """
    plane = plane_of(image)
    height, width = plane.shape
    factor = max(1, -(-max(height, width) // OVERLAY_PIXELS))
    shown = np.ma.masked_invalid(thumbnail(lambda top, bottom: np.asarray(plane[top:bottom]), (height, width), factor))
    size = image.pixel_size_nm
    aspect = min(max(height / width, 0.25), 4.0)
    extent = (-0.5, item["cols"] * item["patch_width_px"] - 0.5, item["rows"] * item["patch_height_px"] - 0.5, -0.5)
    with style():
        figure = Figure(figsize=(9.6, 4.4 * aspect + 0.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        show_image(
            left,
            shown,
            limits=None if shown.count() else (0.0, 1.0),
            pixel_size_nm=None if size is None else size[1] * factor,
            colour_map="gray",
        )
        for rank, place in places.items():
            mark_box(left, str(rank), place.box, factor, MARK)
        for box in queries:
            mark_box(left, "query", box, factor, QUERY)
        left.set_title(shortened(f"{item['path']}: places by rank", 60), parse_math=False)
        heat = right.imshow(values, cmap="inferno", extent=extent, interpolation="nearest")
        right.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
        right.spines[:].set_visible(False)
        right.set_title("similarity of the surroundings of every patch")
        figure.colorbar(heat, ax=right, shrink=0.85, label="cosine similarity")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=FIGURE_DPI, metadata={"Software": None})


def write_rois(path: Path, places: Mapping[int, ScoredBox]) -> None:
    """Write places as rectangles in a ZIP file that the ROI Manager of Fiji opens.

    Args:
        path: ZIP file to write.
        places: Places in one image, by rank.

    Raises:
        ImportError: If roifile is not installed.
    """
    import roifile

    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for rank, place in places.items():
            roi = roifile.ImagejRoi()
            roi.version, roi.roitype = 227, roifile.ROI_TYPE.RECT
            roi.name = f"{rank:04d}_{place.score:.3f}"
            roi.top, roi.left = round(place.box.y), round(place.box.x)
            roi.bottom, roi.right = round(place.box.y + place.box.height), round(place.box.x + place.box.width)
            archive.writestr(zipfile.ZipInfo(f"{roi.name}.roi"), roi.tobytes())


def write_points(path: Path, places: Mapping[int, Place]) -> None:
    """Write the centres of places as a CSV file that napari opens as points.

    Args:
        path: CSV file to write; `axis-0` and `axis-1` are the row and column in pixels, (0, 0) is the centre of the
            first pixel.
        places: Places in one image, by rank.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "axis-0", "axis-1", "rank", "score"])
    for number, (rank, place) in enumerate(places.items()):
        box = place.box
        centre = (box.y + box.height / 2 - 0.5, box.x + box.width / 2 - 0.5)
        writer.writerow([number, *(f"{each:g}" for each in centre), rank, f"{place.score:.6f}"])
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def mark_box(
    axes: Axes, text: str, box: Box, factor: float, mark: str, *, corner: tuple[str, str] = CORNERS[0]
) -> None:
    """Plot a rectangle with a text in a corner of its visible part.

    Args:
        axes: Axes that show an image.
        text: Text.
        box: Rectangle, in pixels of the file.
        factor: Number of pixels of the file in a pixel of the shown image.
        mark: Colour of the rectangle.
        corner: Corner of the text, one of `CORNERS`.
    """
    x, y = box.x / factor - 0.5, box.y / factor - 0.5
    vertical, horizontal = corner
    right, bottom = horizontal == "right", vertical == "bottom"
    # A label may be larger than the rectangle: it is not clipped, and starts inside the image.
    at_x = _inside(x + right * box.width / factor, axes.get_xlim())
    at_y = _inside(y + bottom * box.height / factor, axes.get_ylim())
    for colour, line in (("black", 3.0), (mark, 1.5)):
        axes.add_patch(
            Rectangle((x, y), box.width / factor, box.height / factor, fill=False, edgecolor=colour, linewidth=line)
        )
    axes.annotate(
        text,
        (at_x, at_y),
        xytext=(-2 if right else 2, 2 if bottom else -2),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=8,
        fontweight="bold",
        color="black",
        bbox={"boxstyle": "square,pad=0.12", "facecolor": mark, "edgecolor": "none"},
    )


def _inside(value: float, ends: tuple[float, float]) -> float:
    """Return the position between the ends of an axis that is closest to a value."""
    return min(max(value, min(ends)), max(ends))
