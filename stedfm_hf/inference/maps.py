"""Maps of the predictions of a classifier over large fields, as TIFF for ImageJ and as PNG."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from matplotlib.figure import Figure

from stedfm_hf.inference.preparation import Fact
from stedfm_hf.modeling.image_processing_stedfm import resample
from stedfm_hf.reports.figures import FIGURE_DPI, show_image, style
from stedfm_hf.runs import atomic_path

PANELS = 23
"""Largest number of classes in the PNG; the TIFF holds all."""
THUMBNAIL = 480
"""Larger dimension of the field in the PNG, in pixels."""

Compute = Callable[[Iterator[np.ndarray]], Iterable[np.ndarray]]


@dataclass(frozen=True)
class MapWriter:
    """Function that writes a map of every image larger than a tile (`annotate` of `process_sources`).

    Attributes:
        folder: Folder to write `<path of the image>.map<number>.tif` and `.png` to.
        compute: Function that returns the predictions (C,) of prepared images.
        names: Names of the C predictions.
        tile_size: Size of a tile, in pixels.
        stride: Size of a cell of the map, in pixels of the input of the model.
        limits: Values shown as black and white; None uses the minimum and maximum of the map.
    """

    folder: Path
    compute: Compute
    names: Sequence[str]
    tile_size: int
    stride: int
    limits: tuple[float, float] | None

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Fact:
        """Write the map of one image, and return its file name for the row, or None."""
        if max(pixels.shape[1:]) <= self.tile_size:
            return {"map": None}
        values = tile_map(self.compute, pixels, self.tile_size, self.stride)
        if not np.isfinite(values).all():
            raise ValueError("the map is not finite; try --precision float32")
        low, high = self.limits or (float(values.min()), float(values.max()))
        limits = (low, high) if low < high else (low, low + 1.0)
        name = f"{fact['path']}.map{fact['image_number']}"
        write_map_tiff(self.folder / f"{name}.tif", values, self.names, limits, self._cell(fact, pixels), fact)
        _write_png(self.folder / f"{name}.png", pixels, values, self.names, limits, self.stride, fact)
        return {"map": f"{name}.tif"}

    def _cell(self, fact: Fact, pixels: np.ndarray) -> tuple[float, float]:
        """Return the height and width of a cell in pixels of the file (before resampling)."""
        height, width = pixels.shape[1:]
        return self.stride * fact["height"] / height, self.stride * fact["width"] / width


def tile_map(compute: Compute, pixels: np.ndarray, tile_size: int, stride: int) -> np.ndarray:
    """Compute predictions over a field, one for each cell of `stride` x `stride` pixels.

    The cells cover the field from its top left corner. The prediction of a cell is that of the tile centred on it,
    moved inward at the border. A field smaller than a tile is used whole in that direction.

    Args:
        compute: Function that returns the predictions of prepared images.
        pixels: Field (C, H, W), scaled.
        tile_size: Size of a tile, in pixels.
        stride: Size of a cell, in pixels.

    Returns:
        Map (values of a prediction, ceil(H / stride), ceil(W / stride)) float32.

    Example:
        >>> field = np.repeat(np.arange(6, dtype=np.float32), 2)[None, None]
        >>> tile_map(lambda images: (image.mean(axis=(1, 2)) for image in images), field, tile_size=4, stride=2)
        array([[[0.5, 1. , 2. , 3. , 4. , 4.5]]], dtype=float32)
    """
    # Tiles moved inward may coincide: each is computed once.
    (tops, rows), (lefts, cols) = (
        np.unique(_starts(length, tile_size, stride), return_inverse=True) for length in pixels.shape[1:]
    )
    tiles = (pixels[:, top : top + tile_size, left : left + tile_size] for top in tops for left in lefts)
    values = np.stack(list(compute(tiles))).astype(np.float32, copy=False)
    grid = values.reshape(len(tops), len(lefts), -1)
    return np.ascontiguousarray(grid[rows][:, cols].transpose(2, 0, 1))


def _starts(length: int, tile_size: int, stride: int) -> np.ndarray:
    centred = np.arange(math.ceil(length / stride)) * stride + (stride - tile_size) // 2
    return np.clip(centred, 0, max(0, length - tile_size))


def write_map_tiff(
    path: Path,
    values: np.ndarray,
    names: Sequence[str],
    limits: tuple[float, float],
    cell: tuple[float, float],
    fact: Fact,
) -> None:
    """Write an ImageJ hyperstack (C, rows, cols) with the pixel size of the cells, so that it overlays the image."""
    size = fact["pixel_size_nm"]
    y, x = cell if size is None else (cell[0] * size[0] / 1000.0, cell[1] * size[1] / 1000.0)
    about = {key: fact[key] for key in ("path", "series", "channel")} | {"predictions": list(names)}
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            values,
            imagej=True,
            resolution=(1.0 / x, 1.0 / y),
            metadata={
                "axes": "CYX",
                "unit": "pixel" if size is None else "um",
                "mode": "grayscale",
                "min": limits[0],
                "max": limits[1],
                "Labels": list(names),
                "Info": json.dumps(about, ensure_ascii=False),
            },
        )


def _write_png(
    path: Path,
    pixels: np.ndarray,
    values: np.ndarray,
    names: Sequence[str],
    limits: tuple[float, float],
    stride: int,
    fact: Fact,
) -> None:
    """Write a figure of the field next to the maps of the classes with the largest mean."""
    _, height, width = pixels.shape
    shown = sorted(np.argsort(-values.mean(axis=(1, 2)), kind="stable")[:PANELS])
    factor = min(1.0, THUMBNAIL / max(height, width))
    field = resample(pixels[:1], (factor, factor))[0]
    size = fact["pixel_size_nm"]
    columns = min(4, len(shown) + 1)
    lines = math.ceil((len(shown) + 1) / columns)
    aspect = min(max(height / width, 0.25), 4.0)
    with style():
        figure = Figure(figsize=(2.6 * columns, (2.5 * aspect + 0.4) * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False)
        first, *others = panels.flat
        show_image(first, field, pixel_size_nm=size and size[1] * fact["width"] / field.shape[1])
        first.set_title(f"{fact['path']}, {fact['channel']}"[-40:], parse_math=False)
        for axes, number in zip(others, shown, strict=False):
            show_image(axes, values[number], limits=limits, colour_map="viridis")
            # The last cells reach over the border: cut where the field ends.
            axes.set(xlim=(-0.5, width / stride - 0.5), ylim=(height / stride - 0.5, -0.5))
            axes.set_title(names[number], parse_math=False)
        for axes in others[len(shown) :]:
            axes.set_axis_off()
        figure.colorbar(others[0].images[0], ax=panels, shrink=0.8)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=FIGURE_DPI, metadata={"Software": None})
