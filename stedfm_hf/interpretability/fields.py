"""Maps of images of any size, in the grid of the patches: overlapping tiles that are blended without seams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stedfm_hf.inference.loading import Loaded
from stedfm_hf.modeling.blending_stedfm import tile_starts
from stedfm_hf.modeling.image_processing_stedfm import pad_to_multiple
from stedfm_hf.runs import UserError

Compute = Callable[[torch.Tensor], torch.Tensor]
"""Function that maps a batch (B, C, h, w) float32 on the CPU to maps (B, L, h / patch size, w / patch size)."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of images in the grid of the patches, and their batches.

    Attributes:
        patch_size: Size of a patch, in pixels.
        tile_size: Size of a tile, in pixels; None uses each image whole.
        tile_overlap: Overlap of neighbouring tiles, in pixels.
        batch_size: Number of tiles in one forward pass.
    """

    patch_size: int
    tile_size: int | None
    tile_overlap: int
    batch_size: int = 8

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the rows and columns of patches of an image (..., H, W); the last patches may be incomplete."""
        return -(-shape[-2] // self.patch_size), -(-shape[-1] // self.patch_size)

    def tile(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the rows and columns of patches of a tile of an image (..., H, W)."""
        rows, cols = self.grid(shape)
        if self.tile_size is None:
            return rows, cols
        most = self.tile_size // self.patch_size
        return min(rows, most), min(cols, most)

    def is_whole(self, shape: tuple[int, ...]) -> bool:
        """Return whether an image (..., H, W) fits into one tile."""
        return self.tile(shape) == self.grid(shape)

    def blend(self, compute: Compute, pixels: np.ndarray) -> np.ndarray:
        """Compute the maps of an image in tiles, and blend them.

        Where tiles overlap, their values are averaged with weights that sum to 1 and fall from the centre of a tile to
        its border. An image is mirrored at the bottom and right edge up to whole patches.

        Args:
            compute: Function that computes the maps of a batch of tiles.
            pixels: Image (C, H, W), scaled; rows are read when they are used.

        Returns:
            Maps (L, rows, cols) float64.

        Example:
            >>> tiles = Tiles(patch_size=2, tile_size=4, tile_overlap=2)
            >>> image = np.arange(8.0).repeat(4).reshape(1, 8, 4)
            >>> tiles.blend(lambda batch: torch.nn.functional.avg_pool2d(batch, 2), image)[0, :, 0].tolist()
            [0.5, 2.5, 4.5, 6.5]
        """
        grid, tile = self.grid(pixels.shape), self.tile(pixels.shape)
        down, across = (
            dict(zip(starts, _weights(length, part, starts), strict=True))
            for length, part, starts in zip(grid, tile, self._starts(pixels.shape), strict=True)
        )
        total: np.ndarray | None = None
        for top, lefts, batch in self.batches(pixels):
            maps = compute(batch).double().cpu().numpy()
            if total is None:
                total = np.zeros((maps.shape[1], *grid))
            for left, values in zip(lefts, maps, strict=True):
                weight = down[top][:, None] * across[left]
                total[:, top : top + tile[0], left : left + tile[1]] += weight * values
        assert total is not None
        return total

    def batches(self, pixels: np.ndarray) -> Iterator[tuple[int, list[int], torch.Tensor]]:
        """Cut an image into its overlapping tiles.

        Args:
            pixels: Image (C, H, W), scaled; rows are read when they are used.

        Yields:
            First row of patches of the tiles of a batch, first column of patches of each, and the tiles (B, C, h, w)
            float32.

        Example:
            >>> tiles = Tiles(patch_size=2, tile_size=4, tile_overlap=2)
            >>> [(top, lefts, tuple(batch.shape)) for top, lefts, batch in tiles.batches(np.zeros((1, 4, 8)))]
            [(0, [0, 1, 2], (3, 1, 4, 4))]
        """
        size, (rows, cols) = self.patch_size, self.tile(pixels.shape)
        tops, lefts = self._starts(pixels.shape)
        for top in tops:
            strip = self._strip(pixels, top, rows)
            for first in range(0, len(lefts), self.batch_size):
                some = lefts[first : first + self.batch_size]
                yield top, some, torch.stack([strip[:, :, left * size : (left + cols) * size] for left in some])

    def _starts(self, shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """Return the first row and the first column of patches of the tiles of an image (..., H, W)."""
        overlap = self.tile_overlap // self.patch_size
        down, across = (
            list(tile_starts(length, part, min(overlap, part - 1)))
            for length, part in zip(self.grid(shape), self.tile(shape), strict=True)
        )
        return down, across

    def around(self, pixels: np.ndarray, row: int, col: int) -> tuple[torch.Tensor, int, int]:
        """Cut the tile that is centred on a patch, moved inward at the border.

        Args:
            pixels: Image (C, H, W), scaled.
            row: Row of the patch.
            col: Column of the patch.

        Returns:
            Tile (1, C, h, w), and its first row and column of patches.
        """
        size, (rows, cols) = self.patch_size, self.tile(pixels.shape)
        top, left = (
            min(max(0, at - part // 2), length - part)
            for at, part, length in zip((row, col), (rows, cols), self.grid(pixels.shape), strict=True)
        )
        strip = self._strip(pixels, top, rows)
        return strip[None, :, :, left * size : (left + cols) * size], top, left

    def _strip(self, pixels: np.ndarray, top: int, rows: int) -> torch.Tensor:
        """Read some rows of patches (C, h, w), mirrored beyond the bottom and right edge of the image."""
        size = self.patch_size
        read = pixels[:, top * size : min((top + rows) * size, pixels.shape[1])]
        return torch.from_numpy(pad_to_multiple(np.asarray(read, np.float32), size))


def _weights(length: int, tile: int, starts: Sequence[int]) -> np.ndarray:
    """Return the weights (tiles, tile) of tiles along an axis, in patches; they sum to 1 at every patch.

    They change slowly: tokens hold information of their whole tile, and steep weights would show its border.
    """
    total, shape = np.zeros(length), np.sin(np.pi * (np.arange(tile) + 0.5) / tile) ** 2
    for start in starts:
        total[start : start + tile] += shape
    return np.stack([shape / total[start : start + tile] for start in starts])


def tiles_of(loaded: Loaded, tile_size: int | str | None, tile_overlap: int | None, batch_size: int) -> Tiles:
    """Return the tiles for a model.

    Args:
        loaded: Model.
        tile_size: Size of a tile in pixels, `auto` (the crop size of the model), or None for whole images.
        tile_overlap: Overlap of neighbouring tiles in pixels; None is half a tile: with less, tokens, which know
            their position in the tile, leave a pattern of tiles in the map.
        batch_size: Number of tiles in one forward pass.

    Raises:
        UserError: If a size is not a multiple of the patch size, or tiles overlap entirely.
    """
    patch_size = loaded.model.config.patch_size
    if tile_size is None:
        if tile_overlap is not None:
            raise UserError("--tile-size none has no tiles that overlap; remove --tile-overlap")
        return Tiles(patch_size, None, 0, batch_size)
    size = loaded.model.config.image_size if tile_size == "auto" else int(tile_size)
    if size < 1 or size % patch_size:
        raise UserError(f"tile size {size} is not usable; choose auto, none or a multiple of {patch_size} pixels")
    overlap = size // patch_size // 2 * patch_size if tile_overlap is None else tile_overlap
    if not 0 <= overlap < size or overlap % patch_size:
        raise UserError(
            f"tile overlap {overlap} is not usable; choose a multiple of {patch_size} pixels, from 0 to "
            f"{size - patch_size}"
        )
    return Tiles(patch_size, size, overlap, batch_size)
