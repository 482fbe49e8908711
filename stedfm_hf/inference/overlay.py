"""Overlay of a field: classes in colour with outlines, legend and scale bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from stedfm_hf.reports.figures import label_colours, scale_bar, style
from stedfm_hf.runs import atomic_path

MOST_PIXELS = 2048
"""Largest dimension of the overlay, in pixels."""
FEWEST_PIXELS = 768
"""Dimension to which small fields are enlarged by an integer factor, in pixels."""
TINT, OUTLINE = 0.35, 0.9
"""Opacity of a colour inside a class, and along its border."""
_DPI, _ENTRY, _LINE = 100, 150, 24  # points of the legend, in pixels

Rows = Callable[[int, int], np.ndarray]


def thumbnail(rows: Rows, shape: tuple[int, int], factor: int) -> np.ndarray:
    """Downscale a field by averaging blocks of `factor` x `factor` pixels, read in bands.

    Args:
        rows: Function that returns rows of the field.
        shape: Height and width of the field, in pixels.
        factor: Size of a block, in pixels; the last blocks may be smaller.

    Returns:
        Image (ceil(H / factor), ceil(W / factor)) float32.

    Example:
        >>> field = np.arange(12.0).reshape(3, 4)
        >>> thumbnail(lambda top, bottom: field[top:bottom], (3, 4), 2).tolist()
        [[2.5, 4.5], [8.5, 10.5]]
    """
    height, width = shape
    lefts = np.arange(0, width, factor)
    columns = np.diff(np.append(lefts, width))

    def lines() -> Iterator[np.ndarray]:
        step = factor * max(1, 256 // factor)
        for top in range(0, height, step):
            band = np.asarray(rows(top, min(top + step, height)), np.float32)
            tops = np.arange(0, len(band), factor)
            sums = np.add.reduceat(np.add.reduceat(band, lefts, axis=1), tops, axis=0)
            yield sums / (np.diff(np.append(tops, len(band)))[:, None] * columns).astype(np.float32)

    return np.concatenate(list(lines()))


def write_overlay(
    path: Path,
    rows: Rows,
    masks: Mapping[str, Rows],
    shape: tuple[int, int],
    pixel_size_nm: tuple[float, float] | None,
) -> None:
    """Write the overlay of a field as PNG.

    Args:
        path: File to write.
        rows: Function that returns rows of the field (n, W) in [0, 1].
        masks: Functions that return rows of the mask of each class, by name.
        shape: Height and width of the field, in pixels.
        pixel_size_nm: Pixel size (y, x) in nm, or None.
    """
    factor = math.ceil(max(shape) / MOST_PIXELS)
    enlarged = max(1, FEWEST_PIXELS // max(shape))

    def picture(source: Rows) -> np.ndarray:
        return thumbnail(source, shape, factor).repeat(enlarged, axis=0).repeat(enlarged, axis=1)

    colours = label_colours(masks)
    image = np.repeat(np.clip(picture(rows), 0, 1)[:, :, None], 3, axis=2)
    for name, source in masks.items():
        share = picture(source)[:, :, None]
        inside = share[:, :, 0] >= 0.5
        border = inside & ~ndimage.binary_erosion(inside, border_value=1)
        cover = np.where(border[:, :, None], OUTLINE, TINT * share)
        image += cover * (np.array(to_rgb(colours[name]), np.float32) - image)
    height, width = image.shape[:2]
    columns = max(1, min(len(colours), width // _ENTRY))
    strip = _LINE * math.ceil(len(colours) / columns)
    with style():
        figure = Figure(figsize=(width / _DPI, (height + strip) / _DPI), dpi=_DPI)
        axes = figure.add_axes((0, strip / (height + strip), 1, height / (height + strip)))
        axes.imshow((image * 255).round().astype(np.uint8), interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        if pixel_size_nm is not None:
            scale_bar(axes, (height, width), pixel_size_nm[1] * factor / enlarged)
        legend = figure.legend(
            handles=[Patch(color=colour, label=name) for name, colour in colours.items()],
            loc="lower left",
            ncols=columns,
            borderaxespad=0,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})
