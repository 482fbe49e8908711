"""Regions of a query image: a box, a mask or a ROI file, as weights of the patches that they cover."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stedfm_hf.labels.annotated.annotation_files import read_mask
from stedfm_hf.runs import UserError

_BOX = re.compile(r"(?P<path>.+)@(?P<box>[\d.]+(?:,[\d.]+){3})")


@dataclass(frozen=True)
class Box:
    """Rectangle in an image, in pixels of the file.

    Attributes:
        y: Top edge.
        x: Left edge.
        height: Height.
        width: Width.
    """

    y: float
    x: float
    height: float
    width: float

    def __str__(self) -> str:
        return f"{self.x:g},{self.y:g},{self.width:g},{self.height:g}"

    def overlaps(self, other: Box) -> bool:
        """Return whether two boxes have a common area."""
        return (
            self.y < other.y + other.height
            and other.y < self.y + self.height
            and self.x < other.x + other.width
            and other.x < self.x + self.width
        )


@dataclass(frozen=True)
class Region:
    """Region of an image.

    Attributes:
        box: Rectangle that contains the region.
        mask: Pixels of the region (H, W) bool; None if it is the whole rectangle.
    """

    box: Box
    mask: np.ndarray | None = None

    def weights(self, grid: tuple[int, int], patch_size_px: tuple[float, float]) -> np.ndarray:
        """Return the fraction of each patch of a grid that the region covers, (rows, cols) float64.

        Args:
            grid: Number of rows and columns of patches.
            patch_size_px: Height and width of a patch, in pixels of the file.

        Example:
            >>> Region(Box(4, 8, 4, 16)).weights((2, 3), (8, 8)).tolist()
            [[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]
        """
        if self.mask is None:
            edges = ((self.box.y, self.box.height), (self.box.x, self.box.width))
            rows, cols = (
                np.clip(
                    np.minimum(start + length, (np.arange(count) + 1) * size)
                    - np.maximum(start, np.arange(count) * size),
                    0,
                    None,
                )
                / size
                for (start, length), count, size in zip(edges, grid, patch_size_px, strict=True)
            )
            return np.outer(rows, cols)
        y, x = np.nonzero(self.mask)
        row = np.minimum(y / patch_size_px[0], grid[0] - 1).astype(np.int64)
        col = np.minimum(x / patch_size_px[1], grid[1] - 1).astype(np.int64)
        counts = np.bincount(row * grid[1] + col, minlength=grid[0] * grid[1]).reshape(grid)
        return counts / (patch_size_px[0] * patch_size_px[1])

    def window(self, patch_size_px: tuple[float, float]) -> tuple[int, int]:
        """Return the height and width of the region in patches, at least 1.

        Args:
            patch_size_px: Height and width of a patch, in pixels of the file.
        """
        sides = (self.box.height, self.box.width)
        height, width = (max(1, round(side / size)) for side, size in zip(sides, patch_size_px, strict=True))
        return height, width


def whole(shape: tuple[int, int]) -> Region:
    """Return the region of a whole image of a shape (H, W)."""
    return Region(Box(0, 0, *shape))


def box_region(box: tuple[float, float, float, float], shape: tuple[int, int], name: str) -> Region:
    """Return the region of a box.

    Args:
        box: Left edge, top edge, width and height, in pixels.
        shape: Height and width of the image.
        name: Name of the image, for the message.

    Raises:
        UserError: If the box has no area or is not inside the image.
    """
    x, y, width, height = box
    if not (width > 0 and height > 0 and all(map(math.isfinite, box))):
        raise UserError(
            f"{name}: the box {x:g} {y:g} {width:g} {height:g} has no area; give X Y WIDTH HEIGHT in pixels"
        )
    if x < 0 or y < 0 or x + width > shape[1] or y + height > shape[0]:
        raise UserError(
            f"{name}: the box from x = {x:g}, y = {y:g} to {x + width:g}, {y + height:g} is not inside the image, "
            f"which is {shape[1]} pixels wide and {shape[0]} high; give X Y WIDTH HEIGHT in pixels"
        )
    return Region(Box(y, x, height, width))


def mask_region(file: str | Path, shape: tuple[int, int]) -> Region:
    """Read the region of a mask image, ImageJ ROI file or text file of polygons.

    Args:
        file: File; pixels above 0 in any plane belong to the region.
        shape: Height and width of the image.

    Raises:
        UserError: If the region is empty, or roifile is needed and missing.
        ImageReadError: If the file cannot be read, does not fit the image, or lies outside of it.
    """
    if not Path(file).is_file():
        raise UserError(f"--mask {file}: no such file; check the path")
    mask = np.any(read_mask(Path(file), shape).planes > 0, axis=0)
    if not mask.any():
        raise UserError(f"--mask {file}: marks no pixel; draw the region again")
    rows, cols = (np.flatnonzero(np.any(mask, axis=axis)) for axis in (1, 0))
    top, left = float(rows[0]), float(cols[0])
    return Region(Box(top, left, float(rows[-1]) + 1 - top, float(cols[-1]) + 1 - left), np.asarray(mask))


def split_box(text: str) -> tuple[str, tuple[float, float, float, float] | None]:
    """Split `PATH@X,Y,WIDTH,HEIGHT` into the path and the box; None without a box.

    Example:
        >>> split_box("rings/a.tif@10,20,64,64"), split_box("a@b.tif")
        (('rings/a.tif', (10.0, 20.0, 64.0, 64.0)), ('a@b.tif', None))
    """
    match = _BOX.fullmatch(text)
    if match is None or Path(text).exists():
        return text, None
    x, y, width, height = map(float, match["box"].split(","))
    return match["path"], (x, y, width, height)
