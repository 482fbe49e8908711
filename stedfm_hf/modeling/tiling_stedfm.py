"""Embed images larger than the crops of the model: tiles on the patch grid, in which every position counts once."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

POOLINGS = ("avg", "token", "patch")


@dataclass(frozen=True)
class Tile:
    """Rectangle of the patch grid, in patches.

    Attributes:
        row: First row.
        col: First column.
        rows: Number of rows.
        cols: Number of columns.
        new_row: Number of rows at the top that earlier tiles cover.
        new_col: Number of columns at the left that earlier tiles cover.
    """

    row: int
    col: int
    rows: int
    cols: int
    new_row: int
    new_col: int


def plan_tiles(rows: int, cols: int, tile: int | None) -> list[Tile]:
    """Cover a grid of patches with tiles.

    Tiles are placed from the top left corner. The last one of a row or column is shifted inward to full size; patches
    that it shares with its neighbour count for the neighbour. A grid that is not larger than a tile is used whole in
    that direction.

    Args:
        rows: Height of the grid in patches.
        cols: Width of the grid in patches.
        tile: Size of a tile, in patches; None uses the whole grid as one tile.

    Returns:
        Tiles in raster order; their parts from `new_row`, `new_col` cover every patch exactly once.

    Example:
    ```python
    >>> [(t.col, t.cols, t.new_col) for t in plan_tiles(1, 5, 2)]
    [(0, 2, 0), (2, 2, 0), (3, 2, 1)]

    ```
    """
    return [
        Tile(row, col, height, width, new_row, new_col)
        for row, height, new_row in _plan_axis(rows, tile)
        for col, width, new_col in _plan_axis(cols, tile)
    ]


def _plan_axis(length: int, tile: int | None) -> list[tuple[int, int, int]]:
    if tile is None or length <= tile:
        return [(0, length, 0)]
    starts = [min(start, length - tile) for start in range(0, length, tile)]
    return [(start, tile, nominal - start) for start, nominal in zip(starts, range(0, length, tile), strict=True)]


def patch_coverage(height: int, width: int, patch_size: int) -> np.ndarray:
    """Return the fraction of each patch inside an image, (rows, cols) float32 in (0, 1]; sizes in pixels."""
    rows = np.clip(height - np.arange(0, height, patch_size), 0, patch_size) / patch_size
    cols = np.clip(width - np.arange(0, width, patch_size), 0, patch_size) / patch_size
    return np.outer(rows, cols).astype(np.float32)


@dataclass(eq=False)
class _Pending:
    """Image in progress: its weighted sum or map of patch tokens, and the number of tiles that are left."""

    coverage: np.ndarray
    tiles_left: int
    total: np.ndarray | None = None
    weight: float = 0.0

    def add(self, tile: Tile, tokens: torch.Tensor, pooling: str) -> None:
        """Add the new part of a tile, `tokens` (1 + rows * cols, D) float32."""
        grid = tokens[1:].unflatten(0, (tile.rows, tile.cols))[tile.new_row :, tile.new_col :]
        row, col = tile.row + tile.new_row, tile.col + tile.new_col
        inside = np.s_[row : tile.row + tile.rows, col : tile.col + tile.cols]
        self.tiles_left -= 1
        if pooling == "patch":
            if self.total is None:
                self.total = np.empty((*self.coverage.shape, tokens.shape[1]), dtype=np.float32)
            self.total[inside] = grid.numpy()
            return
        weights = torch.from_numpy(self.coverage[inside])
        weight = float(weights.sum())
        total = tokens[0] * weight if pooling == "token" else torch.einsum("rcd,rc->d", grid, weights)
        self.total = total.numpy() if self.total is None else self.total + total.numpy()
        self.weight += weight

    def result(self, pooling: str) -> np.ndarray:
        """Return the finished embedding (D,) or map (rows, cols, D)."""
        assert self.total is not None
        return self.total if pooling == "patch" else (self.total / self.weight).astype(np.float32)


@dataclass(eq=False)
class _Batches:
    """Tiles grouped by size, until they fill a batch."""

    size: int
    waiting: dict[tuple[int, ...], list[tuple[_Pending, Tile, np.ndarray]]] = field(default_factory=dict)
    count: int = 0

    def add(self, entry: tuple[_Pending, Tile, np.ndarray]) -> Iterator[list[tuple[_Pending, Tile, np.ndarray]]]:
        """Add a tile (its image, its position and its pixels), and yield the batches that are full now."""
        group = self.waiting.setdefault(entry[2].shape, [])
        group.append(entry)
        self.count += 1
        if len(group) == self.size:
            yield self.pop(entry[2].shape)
        elif self.count >= 4 * self.size:
            # Images of many different sizes would wait for ever: the fullest group goes as it is.
            yield self.pop(max(self.waiting, key=lambda shape: len(self.waiting[shape])))

    def pop(self, shape: tuple[int, ...]) -> list[tuple[_Pending, Tile, np.ndarray]]:
        batch = self.waiting.pop(shape)
        self.count -= len(batch)
        return batch

    def drain(self) -> Iterator[list[tuple[_Pending, Tile, np.ndarray]]]:
        for shape in list(self.waiting):
            yield self.pop(shape)


def _cut(pixels: np.ndarray, tile: Tile, patch_size: int) -> np.ndarray:
    """Return the pixels of a tile (C, h, w), mirrored beyond the bottom and right edge of the image.

    Only the rows of the tile are read, so that the pixels can be an array that reads them from a file.
    """
    _, height, width = pixels.shape
    top, left = tile.row * patch_size, tile.col * patch_size
    bottom, right = top + tile.rows * patch_size, left + tile.cols * patch_size
    # The rows and columns that are mirrored may lie before a tile that hardly reaches into the image.
    first = max(0, min(top, height - max(0, bottom - height)))
    first_column = max(0, min(left, width - max(0, right - width)))
    inside = np.asarray(pixels[:, first : min(bottom, height), first_column : min(right, width)])
    added = ((0, 0), (0, max(0, bottom - height)), (0, max(0, right - width)))
    padded = np.pad(inside, added, mode="symmetric") if any(map(sum, added)) else inside
    return padded[:, top - first :, left - first_column :]


@torch.inference_mode()
def encode_images(
    model: PreTrainedModel,
    images: Iterable[np.ndarray],
    *,
    pooling: str = "avg",
    tile_size: int | str | None = "auto",
    batch_size: int = 32,
) -> Iterator[np.ndarray]:
    """Embed prepared images of any size, batching tiles across images.

    An image is padded to whole patches and cut into tiles on the patch grid. Every position of the image counts once,
    and padding does not count.

    Args:
        model: STED-FM encoder, or a model that holds one, on its device and in its dtype.
        images: Images (C, H, W) float32 in [0, 1], from `StedFmImageProcessor.prepare`.
        pooling: `"avg"` (mean of the patch tokens, weighted by the fraction of the patch inside the image), `"token"`
            (class token, averaged over tiles by the area they add) or `"patch"` (all patch tokens).
        tile_size: Size of a tile, in pixels; `"auto"` is the model's `image_size`, None uses whole images.
        batch_size: Number of tiles in one forward pass.

    Yields:
        One array per image in the order of `images`, float32: (D,), or (rows, cols, D) for `"patch"`.

    Raises:
        ValueError: For an unknown pooling, or a tile size that is not a multiple of the patch size.
    """
    encoder = model.base_model
    patch_size = encoder.config.patch_size
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    side = encoder.config.image_size if tile_size == "auto" else tile_size
    if side is not None and (not isinstance(side, int) or side <= 0 or side % patch_size):
        raise ValueError(
            f"tile_size must be 'auto', None or a multiple of the patch size {patch_size}, got {tile_size!r}"
        )

    def run(batch: list[tuple[_Pending, Tile, np.ndarray]]) -> None:
        pixel_values = torch.from_numpy(np.stack([pixels for _, _, pixels in batch]))
        tokens = encoder(pixel_values.to(encoder.device, encoder.dtype)).last_hidden_state.float().cpu()
        for (image, part, _), image_tokens in zip(batch, tokens, strict=True):
            image.add(part, image_tokens, pooling)

    pending: deque[_Pending] = deque()
    batches = _Batches(batch_size)
    for pixels in images:
        _, height, width = pixels.shape
        coverage = patch_coverage(height, width, patch_size)
        rows, cols = coverage.shape
        tiles = plan_tiles(rows, cols, None if side is None else side // patch_size)
        image = _Pending(coverage, len(tiles))
        pending.append(image)
        for part in tiles:
            for batch in batches.add((image, part, _cut(pixels, part, patch_size))):
                run(batch)
        while pending and not pending[0].tiles_left:
            yield pending.popleft().result(pooling)
    for batch in batches.drain():
        run(batch)
    while pending:
        yield pending.popleft().result(pooling)


__all__ = ["Tile", "encode_images", "patch_coverage", "plan_tiles"]
