"""Regions to image: the highest maxima of a score map that are far enough apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from skimage.feature import peak_local_max

from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL

_LENGTHS = ("y", "x", "height", "width", "centre_y", "centre_x")
REGION_SCHEMA = pa.schema(
    [
        *OF_IMAGE,
        ("rank", pa.int64()),
        ("label", pa.string()),
        ("score", pa.float64()),
        *((f"{name}_{unit}", pa.float64()) for unit in ("px", "um") for name in _LENGTHS),
        ("peak_y_px", pa.float64()),
        ("peak_x_px", pa.float64()),
        ("stage_x_um", pa.float64()),
        ("stage_y_um", pa.float64()),
        ("map_file", pa.string()),
        ("overlay_file", pa.string()),
        *OF_MODEL,
    ]
)
"""Columns of the table of regions."""


@dataclass(frozen=True)
class Region:
    """Region of a field to image.

    Attributes:
        score: Score of the peak.
        box: Rectangle, in pixels of the file.
        peak: Row and column of the centre of the cell with the score, in pixels of the file.
    """

    score: float
    box: Box
    peak: tuple[float, float]

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the centre, in pixels; (0, 0) is the centre of the first pixel."""
        return self.box.y + self.box.height / 2 - 0.5, self.box.x + self.box.width / 2 - 0.5

    def columns(self, pixel_size_nm: tuple[float, float] | None) -> Fact:
        """Return the columns of position and size in the table, in pixels and in µm (null without a pixel size)."""
        centre_y, centre_x = self.centre
        box = self.box
        values = dict(zip(_LENGTHS, (box.y, box.x, box.height, box.width, centre_y, centre_x), strict=True))
        found: dict[str, Any] = {f"{name}_px": value for name, value in values.items()}
        for name, value in values.items():
            axis = 0 if name.endswith(("y", "height")) else 1
            found[f"{name}_um"] = None if pixel_size_nm is None else value * pixel_size_nm[axis] / 1000
        return found | {"score": self.score, "peak_y_px": self.peak[0], "peak_x_px": self.peak[1]}


def find_regions(
    values: np.ndarray,
    *,
    cell: tuple[float, float],
    shape: tuple[int, int],
    size: tuple[float, float],
    min_score: float,
    count: int,
    min_distance: tuple[float, float] | None = None,
) -> list[Region]:
    """Select regions around the highest local maxima of a score map (non-maximum suppression).

    A region is centred on a maximum, and moved inward at the border of the field. A maximum whose region is too close
    to that of a higher one is suppressed.

    Args:
        values: Score map (rows, cols).
        cell: Height and width of a cell of the map, in pixels of the file.
        shape: Height and width of the field, in pixels.
        size: Height and width of a region, in pixels; less in smaller fields.
        min_score: Smallest score of a region.
        count: Largest number of regions.
        min_distance: Smallest distance of the centres of two regions along the rows or along the columns, in pixels;
            None is the size of a region, so that regions do not overlap.

    Returns:
        Regions, the highest score first.

    Example:
        >>> scores = np.array([[0.0, 0.2, 0.9, 0.1, 0.3, 0.0]])
        >>> found = find_regions(scores, cell=(8, 8), shape=(8, 48), size=(8, 16), min_score=0.1, count=9)
        >>> [(each.score, str(each.box)) for each in found]
        [(0.9, '12,0,16,8'), (0.3, '28,0,16,8')]
    """
    height, width = (min(each, length) for each, length in zip(size, shape, strict=True))
    down, across = (height, width) if min_distance is None else min_distance
    padded = np.pad(
        values, 1, constant_values=-np.inf
    )  # a maximum may be at the border, and a map of one cell has one
    peaks = peak_local_max(
        padded, min_distance=1, threshold_abs=np.nextafter(min_score, -np.inf), exclude_border=False
    )
    chosen: list[Region] = []
    for row, col in peaks - 1:
        if len(chosen) == count:
            break
        peak = min((row + 0.5) * cell[0], shape[0]) - 0.5, min((col + 0.5) * cell[1], shape[1]) - 0.5
        top = float(np.clip(peak[0] + 0.5 - height / 2, 0, shape[0] - height))
        left = float(np.clip(peak[1] + 0.5 - width / 2, 0, shape[1] - width))
        region = Region(float(values[row, col]), Box(top, left, height, width), peak)
        apart = (
            abs(region.box.y - other.box.y) >= down or abs(region.box.x - other.box.x) >= across for other in chosen
        )
        if all(apart):
            chosen.append(region)
    return chosen
