"""Thumbnails of results: equal squares with a scale bar."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.images import StedImage
from stedfm_hf.inference.overlay import thumbnail
from stedfm_hf.reports.figures import png_uri, show_image, style

SIZE_PX = 220
"""Size of a thumbnail on a page, in CSS pixels."""
MOST_PIXELS = 320
"""Largest size of the shown image, in averaged pixels."""
MARK = "#FFB000"
"""Colour of the rectangle around a region."""
_DPI = 150


def plane_of(image: StedImage) -> np.ndarray:
    """Return the first channel of an image (H, W), also of one whose rows are read when they are used."""
    return image.array[0]


def thumbnail_uri(image: StedImage | None, *, box: Box | None = None, crop: Box | None = None) -> str:
    """Return a square thumbnail as a data URI.

    Args:
        image: Image; None shows that the file is not found.
        box: Rectangle to mark, in pixels of the image.
        crop: Part of the image to show, in pixels; None shows all.
    """
    with style():
        figure = Figure(figsize=(SIZE_PX / 96, SIZE_PX / 96), dpi=_DPI, facecolor="black")
        axes = figure.add_axes((0, 0, 1, 1))
        show_thumbnail(axes, image, box=box, crop=crop)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None}, facecolor="black")
    return png_uri(content.getvalue())


def show_thumbnail(axes: Axes, image: StedImage | None, *, box: Box | None = None, crop: Box | None = None) -> None:
    """Show an image, or a part of it, on axes; see `thumbnail_uri`."""
    axes.set_facecolor("black")
    if image is None:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "file not found", color="white", ha="center", va="center", transform=axes.transAxes)
        return
    plane = plane_of(image)
    height, width = plane.shape
    top, left, bottom, right = 0, 0, height, width
    if crop is not None:
        (top, bottom), (left, right) = _inside(crop.y, crop.height, height), _inside(crop.x, crop.width, width)
    factor = max(1, -(-max(bottom - top, right - left) // MOST_PIXELS))
    shown = thumbnail(
        lambda first, last: np.asarray(plane[top + first : top + last])[:, left:right],
        (bottom - top, right - left),
        factor,
    )
    pixels = np.ma.masked_invalid(shown)
    size = image.pixel_size_nm
    limits = None if pixels.count() else (0.0, 1.0)
    show_image(axes, pixels, limits=limits, pixel_size_nm=None if size is None else size[1] * factor)
    if box is not None and (box.height < height or box.width < width):
        y, x = (box.y - top) / factor - 0.5, (box.x - left) / factor - 0.5
        for colour, line in (("black", 3.0), (MARK, 1.5)):
            axes.add_patch(
                Rectangle(
                    (x, y), box.width / factor, box.height / factor, fill=False, edgecolor=colour, linewidth=line
                )
            )


def _inside(start: float, size: float, length: int) -> tuple[int, int]:
    """Return the first and last pixel of a part of an axis, moved into the image so that it keeps its size."""
    count = min(round(size), length)
    first = min(max(0, round(start)), length - count)
    return first, first + count
