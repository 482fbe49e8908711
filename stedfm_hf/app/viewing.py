"""Images of a visitor: open a series and a channel, and show them in 8 bit with a scale bar.

The display range decides only how pixels are shown: models always get the pixels of the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stedfm_hf.data.sources import ImageFile
from stedfm_hf.images import SeriesInfo, StedImage, list_series, read_image
from stedfm_hf.inference.one_image import one_channel
from stedfm_hf.inference.overlay import thumbnail
from stedfm_hf.reports.figures import automatic_limits, scale_bar, style, to_8bit
from stedfm_hf.runs import UserError, atomic_path

LARGEST, SMALLEST = 1024, 512
"""Sizes between which images are shown, in pixels: larger ones are averaged, smaller ones enlarged by a factor."""
MOST_SERIES = 500
"""Largest number of series to choose from."""
_DPI = 100


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """Image that a visitor has opened.

    Attributes:
        file: File in the folder of the visit.
        series: Series of the file.
        number: Index of the opened series.
        image: Pixels of the opened series in the type of the file, all channels.
        channel: Index of the shown channel.
        limits: Intensities shown as black and white.
    """

    file: Path
    series: Sequence[SeriesInfo]
    number: int
    image: StedImage
    channel: int
    limits: tuple[float, float]

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.file.name

    @property
    def plane(self) -> np.ndarray:
        """Pixels of the shown channel (H, W)."""
        return self.image.array[self.channel]

    @property
    def pixel_width_nm(self) -> float | None:
        """Width of a pixel in nm, or None."""
        size = self.image.pixel_size_nm
        return None if size is None else size[1]

    def for_model(self, channels: int) -> StedImage:
        """Return the image for a model: the shown channel, or all if the model has more than one.

        Args:
            channels: Number of channels of the model.
        """
        image = replace(self.image, source=self.name)
        return one_channel(image, self.channel) if channels == 1 else image

    def range(self) -> tuple[float, float]:
        """Return the smallest and the largest finite intensity of the channel; 0 and 1 without any."""
        finite = self.plane[np.isfinite(self.plane)]
        if not finite.size:
            return 0.0, 1.0
        low, high = float(finite.min()), float(finite.max())
        return low, high if high > low else low + 1.0

    def describe(self) -> str:
        """Describe the image in one line: size, type, pixel size and intensities."""
        height, width = self.plane.shape
        size = self.image.pixel_size_nm
        pixels = "no pixel size in the file" if size is None else f"{size[0]:.4g} × {size[1]:.4g} nm pixels"
        low, high = self.range()
        return f"{height} × {width}, {self.plane.dtype}, {pixels}, intensities {low:.6g} to {high:.6g}"


def open_image(
    file: Path, *, max_pixels: float, series: int = 0, channel: int = 0, known: Sequence[SeriesInfo] | None = None
) -> OpenedImage:
    """Open a series of a file and choose a channel.

    Args:
        file: File.
        max_pixels: Largest number of pixels of a plane.
        series: Index of the series.
        channel: Index of the channel; 0 if the series has fewer.
        known: Series of the file, if they are known.

    Raises:
        UserError: If the image has too many pixels.
        ImageReadError: If the file cannot be read; the message begins with the name of the file.
    """
    with ImageFile(file, file.name, None).named_errors():
        found = list(list_series(file))[:MOST_SERIES] if known is None else known
        info = found[series]
        if math.prod(info.shape[1:]) > max_pixels:
            raise UserError(
                f"{file.name}: has {info.shape[1]} × {info.shape[2]} pixels, more than the limit of "
                f"{max_pixels / 1e6:g} million; crop it, or use the commands of the package"
            )
        image = read_image(file, series=series)
    opened = OpenedImage(file, found, series, image, channel if channel < len(image.array) else 0, (0.0, 1.0))
    return replace(opened, limits=automatic_limits(opened.plane))


@dataclass(frozen=True)
class Zoom:
    """How an image is shown.

    Attributes:
        shape: Height and width of the image, in pixels.
        factor: Number of pixels of the image in one of the averaged image, along each axis.
        enlarged: Number of pixels shown for one of the averaged image, along each axis.
    """

    shape: tuple[int, int]
    factor: int
    enlarged: int

    def pixel_at(self, x: float, y: float) -> tuple[int, int]:
        """Return the row and the column of the image at a position of the shown picture, in pixels.

        Example:
            >>> zoom_of((64, 128)).pixel_at(511, 0)
            (0, 127)
        """
        scale = self.factor / self.enlarged
        return min(int(y * scale), self.shape[0] - 1), min(int(x * scale), self.shape[1] - 1)


def zoom_of(shape: tuple[int, int]) -> Zoom:
    """Return how an image of a shape (H, W) is shown."""
    return Zoom(shape, math.ceil(max(shape) / LARGEST), max(1, SMALLEST // max(shape)))


def write_picture(
    path: Path,
    plane: np.ndarray,
    limits: tuple[float, float],
    pixel_width_nm: float | None,
    *,
    colour_map: str = "gray",
    hidden: np.ndarray | None = None,
    over: np.ndarray | None = None,
    marked: tuple[float, float, float, float] | None = None,
    boxes: Mapping[str, tuple[float, float, float, float]] | None = None,
) -> Zoom:
    """Write a picture of an image as an 8-bit PNG with a scale bar.

    Args:
        path: PNG file.
        plane: Intensities (H, W).
        limits: Intensities shown as black and white.
        pixel_width_nm: Width of a pixel in nm; None leaves out the scale bar.
        colour_map: Name of a matplotlib colour map.
        hidden: Pixels (H, W) bool that are shown in one colour.
        over: Red, green, blue and opacity (H, W, 4) uint8 that are shown over the image.
        marked: Rectangle to mark: top, left, height and width, in pixels of the image.
        boxes: Other rectangles, by the text in their corner.

    Returns:
        How the image is shown.
    """
    shape = (plane.shape[0], plane.shape[1])
    zoom = zoom_of(shape)

    def shown(source: np.ndarray) -> np.ndarray:
        small = thumbnail(lambda top, bottom: source[top:bottom], shape, zoom.factor)
        return small.repeat(zoom.enlarged, axis=0).repeat(zoom.enlarged, axis=1)

    colours = _colours(colour_map)
    picture = colours[to_8bit(shown(plane), limits)]
    if hidden is not None:
        picture[shown(hidden) > 0.5] = (58, 76, 102)
    if over is not None:
        *layers, opacity = (shown(over[..., each]) for each in range(4))
        picture = picture + (np.dstack(layers) - picture) * opacity[..., None] / 255
        picture = picture.round().clip(0, 255).astype(np.uint8)
    height, width = picture.shape[:2]
    with style():
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        scale = zoom.enlarged / zoom.factor
        if pixel_width_nm is not None:
            scale_bar(axes, (height, width), pixel_width_nm / scale)
        for text, box in (boxes or {}).items():
            _mark(axes, box, scale, "#39C0FF", text)
        if marked is not None:
            _mark(axes, marked, scale, "#FFB000")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})
    return zoom


def _mark(axes: Axes, box: tuple[float, float, float, float], scale: float, colour: str, text: str = "") -> None:
    """Plot a rectangle in pixels of the image, with a text in its corner."""
    top, left, rows, columns = (length * scale for length in box)
    for edge, line in (("black", 4.0), (colour, 2.0)):
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), columns, rows, fill=False, edgecolor=edge, linewidth=line))
    outline = [patheffects.withStroke(linewidth=3.0, foreground="black")]
    axes.text(left + 5, top + 5, text, color=colour, fontsize=11, fontweight="bold", va="top", path_effects=outline)


def _colours(name: str) -> np.ndarray:
    """Return the 256 colours of a colour map, (256, 3) uint8; grey levels are exact, unlike those of matplotlib."""
    if name == "gray":
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    return matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
