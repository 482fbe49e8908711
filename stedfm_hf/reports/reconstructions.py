"""Figures of masked images and their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure, SubFigure

from stedfm_hf.reports.figures import display_limits, label_colours, show_image, style

DIFFERENCE_MAP = "RdBu_r"
"""Colour map of a difference: red where the prediction is too bright, blue where it is too dark."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Image, its visible patches and its reconstruction.

    Attributes:
        original: Image (H, W), scaled to [0, 1].
        seen: The image as a masked array (H, W), in which hidden pixels are masked.
        predicted: Reconstruction (H, W): visible pixels of the image, and predicted hidden pixels.
        label: Name of its class, or None.
        pixel_size_nm: Size of a pixel in nm, for a scale bar, or None.
    """

    original: np.ndarray
    seen: np.ma.MaskedArray
    predicted: np.ndarray
    label: str | None = None
    pixel_size_nm: float | None = None


def mask_of_pixels(mask: np.ndarray, grid: tuple[int, int], patch_size: int) -> np.ndarray:
    """Convert a mask of patches (B, N) in raster order to a mask of pixels (B, H, W).

    Example:
        >>> mask_of_pixels(np.array([[True, False]]), (1, 2), 2).astype(int)[0]
        array([[1, 1, 0, 0],
               [1, 1, 0, 0]])
    """
    return mask.reshape(-1, *grid).repeat(patch_size, axis=1).repeat(patch_size, axis=2)


def plot_reconstructions(
    target: Figure | SubFigure, reconstructions: Sequence[Reconstruction], *, difference: bool = False
) -> None:
    """Plot a row for each image: the image, its visible patches, the reconstruction and optionally the difference."""
    titles = ("image", "masked", "reconstruction", *["difference"] * difference)
    axes = target.subplots(
        len(reconstructions), len(titles), squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04}
    )
    colours = label_colours(each.label for each in reconstructions if each.label is not None)
    for row, each in zip(axes, reconstructions, strict=True):
        limits = display_limits(each.original)
        show_image(row[0], each.original, limits=limits, pixel_size_nm=each.pixel_size_nm)
        show_image(row[1], each.seen, limits=limits)
        show_image(row[2], each.predicted, limits=limits)
        if difference:
            contrast = limits[1] - limits[0]
            error = each.predicted - each.original
            show_image(row[3], error, limits=(-contrast, contrast), colour_map=DIFFERENCE_MAP)
        if each.label is not None:
            row[0].set_ylabel(each.label, color=colours[each.label], fontsize=9.5)
    for column, title in zip(axes[0], titles, strict=True):
        column.set_title(title)


def reconstruction_figure(reconstructions: Sequence[Reconstruction], *, difference: bool = False) -> Figure:
    """Return a figure with reconstructions; see `plot_reconstructions`."""
    with style():
        figure = Figure(figsize=(2.2 * (4 if difference else 3), 2.2 * len(reconstructions)))
        plot_reconstructions(figure, reconstructions, difference=difference)
        return figure
