"""Figures in one style: colours for colour-blind readers, scale bars in µm, PNG and SVG files."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle

from stedfm_hf.runs.files import atomic_path
from stedfm_hf.runs.storage import as_path

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D3A9B", "#7A7A7A")
"""Colours after Okabe and Ito, ordered so that the first four differ most; without black and yellow."""

IMAGE_MAP = "inferno"
"""Colour map of intensities, perceptually uniform on a dark background."""

FIGURE_DPI = 160

INK, MUTED, GRID = "#1F2933", "#616E7C", "#E4E7EB"

_STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "stedfm",
}

_SCALE_BARS_UM = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of all figures within a `with` block.

    Figures are made with `matplotlib.figure.Figure` instead of pyplot, without a window system or global state.
    """
    # `rc_context` would also reset what a backend sets when pyplot loads it here: Jupyter would then show no figures.
    before = {name: matplotlib.rcParams[name] for name in _STYLE}
    matplotlib.rcParams.update(_STYLE)
    try:
        yield
    finally:
        matplotlib.rcParams.update(before)


def label_colours(labels: Iterable[str]) -> dict[str, str]:
    """Assign a colour to every label, in the order in which the labels first appear.

    Example:
        >>> label_colours(["rings", "puncta", "rings"])
        {'rings': '#0072B2', 'puncta': '#D55E00'}
    """
    names = list(dict.fromkeys(labels))
    if len(names) <= len(PALETTE):
        return dict(zip(names, PALETTE, strict=False))
    wheel = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(names)))
    return {name: matplotlib.colors.to_hex(colour) for name, colour in zip(names, wheel, strict=True)}


def display_limits(image: np.ndarray) -> tuple[float, float]:
    """Return the intensities shown as black and white: the minimum and the 99.8th percentile of an image (H, W)."""
    low, high = float(image.min()), float(np.percentile(image, 99.8))
    return (low, high) if high > low else (low, low + 1.0)


def automatic_limits(plane: np.ndarray) -> tuple[float, float]:
    """Return the default display range: minimum and 99.8th percentile of the finite pixels."""
    finite = plane[np.isfinite(plane)]
    return display_limits(finite) if finite.size else (0.0, 1.0)


def to_8bit(plane: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Convert intensities (H, W) to the grey levels that are shown; a pixel that is not finite is black.

    Args:
        plane: Intensities.
        limits: Intensities shown as black (0) and white (255).

    Example:
        >>> to_8bit(np.array([[0, 500, 1000, 2000]], np.uint16), (0, 1000)).tolist()
        [[0, 128, 255, 255]]
    """
    low, high = limits
    scaled = (np.nan_to_num(plane.astype(np.float32), nan=low) - low) / max(high - low, 1e-12)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def show_image(
    axes: Axes,
    image: np.ndarray,
    *,
    limits: tuple[float, float] | None = None,
    pixel_size_nm: float | None = None,
    frame: str | None = None,
    colour_map: str = IMAGE_MAP,
) -> None:
    """Show an image (H, W) without ticks.

    Args:
        axes: Axes to plot in.
        image: Intensities (H, W); masked pixels of masked arrays are grey.
        limits: Intensities shown as black and white; by default `display_limits`.
        pixel_size_nm: Size of a pixel in nm; adds a scale bar.
        frame: Colour of a frame around the image, usually that of its label.
        colour_map: Name of a matplotlib colour map.
    """
    low, high = limits or display_limits(np.ma.compressed(image))
    colours = matplotlib.colormaps[colour_map].with_extremes(bad="#D7DCE1")
    axes.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        spine.set_edgecolor(frame or "none")
        spine.set_linewidth(2.0)
    if pixel_size_nm is not None:
        scale_bar(axes, (image.shape[0], image.shape[1]), pixel_size_nm)


def scale_bar(axes: Axes, shape: tuple[int, int], pixel_size_nm: float, *, avoid: np.ndarray | None = None) -> None:
    """Add a scale bar of a round length, about a quarter of the width, with its length in µm.

    Args:
        axes: Axes that show an image of `shape`.
        shape: Height and width of the image, in pixels.
        pixel_size_nm: Size of a pixel, in nm.
        avoid: Points (n, 2) to avoid, as x and y in pixels: the bar is in the corner farthest from them, by default
            at the bottom right.
    """
    height, width = shape
    fitting = [length for length in _SCALE_BARS_UM if length * 1000.0 / pixel_size_nm <= 0.4 * width]
    length = fitting[-1] if fitting else _SCALE_BARS_UM[0]
    pixels = length * 1000.0 / pixel_size_nm
    corners = [
        (right, bottom) for bottom in (0.93 * height, 0.12 * height) for right in (0.94 * width, 0.06 * width + pixels)
    ]
    corner = 0
    if avoid is not None and len(avoid):
        middles = np.array(corners) - (pixels / 2, 0.04 * height)
        corner = int(np.linalg.norm(middles[:, None] - avoid, axis=2).min(axis=1).argmax())
    right, bottom = (at - 0.5 for at in corners[corner])
    thickness = 0.022 * height
    axes.add_patch(Rectangle((right - pixels, bottom - thickness), pixels, thickness, color="white", lw=0))
    points = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted()).height * 72
    text = axes.text(
        right - pixels / 2,
        bottom - 1.6 * thickness,
        f"{length:g} µm",
        color="white",
        ha="center",
        va="bottom",
        fontsize=min(max(7.5, 0.035 * points), 16),
        fontweight="bold",
    )
    text.set_path_effects([patheffects.withStroke(linewidth=2.0, foreground="black", alpha=0.8)])


def plot_outline(
    axes: Axes, mask: np.ndarray, colour: str, linewidth: float, effects: Sequence[patheffects.AbstractPathEffect] = ()
) -> None:
    """Plot the outlines of a mask (H, W) over its image.

    Args:
        axes: Axes of the image.
        mask: Pixels to outline (H, W) bool.
        colour: Colour of the lines.
        linewidth: Width of the lines, in points.
        effects: Effects of the lines, such as a dark edge.
    """
    padded = np.pad(mask.astype(np.float32), 1)  # closes outlines at the border of the image
    if padded.any():
        rows, columns = (np.arange(length) - 1 for length in padded.shape)
        lines = axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=linewidth)
        lines.set_path_effects(list(effects))


def scatter_images(
    axes: Axes,
    points: np.ndarray,
    images: list[np.ndarray],
    colours: list[str],
    *,
    thumbnail: float = 0.085,
    most: int = 40,
) -> None:
    """Plot a map of images: a dot for every image, and a thumbnail of some of them.

    Args:
        axes: Axes to plot in.
        points: Positions (n, 2) of the images, in any unit.
        images: Images (H, W).
        colours: Colour of each dot.
        thumbnail: Size of a thumbnail, as a fraction of the axes.
        most: Largest number of thumbnails, which never overlap.
    """
    low, extent = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-12)
    position = (points - low) / extent
    axes.scatter(position[:, 0], position[:, 1], s=16, c=colours, linewidths=0, alpha=0.85)
    axes.set(xlim=(-0.08, 1.08), ylim=(-0.08, 1.08), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    box = axes.get_window_extent()
    size = thumbnail * min(box.width, box.height)
    reach = 1.16 * 1.12 * size / np.array([box.width, box.height])
    shown: list[np.ndarray] = []
    for index in np.random.default_rng(0).permutation(len(points)):
        if len(shown) == most:
            break
        if any((np.abs(position[index] - other) < reach).all() for other in shown):
            continue
        shown.append(position[index])
        small = middle(images[index], 96)
        low_high = display_limits(small)
        coloured = matplotlib.colormaps[IMAGE_MAP]((small - low_high[0]) / (low_high[1] - low_high[0]))
        # An OffsetImage of zoom 1 has one point per pixel.
        zoom = size / max(small.shape) * 72.0 / axes.figure.dpi
        axes.add_artist(
            AnnotationBbox(
                OffsetImage(coloured, zoom=zoom, interpolation="antialiased"),
                tuple(position[index]),
                frameon=True,
                pad=0.12,
                bboxprops={"edgecolor": colours[index], "linewidth": 1.6},
            )
        )


def middle(image: np.ndarray, size: int) -> np.ndarray:
    """Return the central square of an image (H, W), at most `size` pixels wide.

    Example:
        >>> middle(np.zeros((10, 4)), 6).shape
        (4, 4)
    """
    size = min(size, *image.shape)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def shortened(text: str, most: int = 28) -> str:
    """Shorten a text to at most `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def wrapped(text: str, width: int, lines: int = 2) -> str:
    """Wrap a text at spaces into lines of at most `width` characters, and shorten what does not fit.

    Example:
        >>> print(wrapped("Logistic regression (untrained)", 24))
        Logistic regression
        (untrained)
    """
    parts = textwrap.wrap(text, width) or [""]
    return "\n".join([*parts[: lines - 1], shortened(" ".join(parts[lines - 1 :]), width)][: len(parts)])


def legend(axes: Axes, colours: Mapping[str, str], **options: Any) -> None:
    """Add a legend with a coloured dot for each label."""
    for name, colour in colours.items():
        axes.plot([], [], "o", markersize=5.5, color=colour, label=name)
    axes.legend(**{"handletextpad": 0.2, "columnspacing": 1.2, **options})


def save_figure(figure: Figure, folder: str | Path, name: str) -> Path:
    """Write `FOLDER/NAME.png` and `FOLDER/NAME.svg`.

    Args:
        figure: Figure to save.
        folder: Folder to write to; made if it does not exist.
        name: File name without suffix.

    Returns:
        Path of the PNG.
    """
    png = as_path(folder) / f"{name}.png"
    for path in (png, png.with_suffix(".svg")):
        # Without date and version, so that the same figure gives the same file.
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
        with style(), atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=FIGURE_DPI, bbox_inches="tight", pad_inches=0.06, metadata=metadata)
    return png


def png_uri(png: bytes) -> str:
    """Encode the bytes of a PNG file as a data URI.

    Example:
        >>> png_uri(b"x")
        'data:image/png;base64,eA=='
    """
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
