"""Segment fields larger than the model's crops: overlapping tiles, blended without seams.

Neighbouring tiles overlap by `tile_overlap` pixels. The outer quarter of the overlap is context only: its values are
discarded, because the model sees nothing beyond its tile. In the rest of the overlap the values of the tiles are
averaged with Gaussian weights that decrease from the centre of each tile. The weights sum to 1 at every pixel.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from transformers import PreTrainedModel

from .image_processing_stedfm import pad_to_multiple

SIGMA = 0.125
"""Standard deviation of the weights, as a fraction of the tile size."""

Rows = Callable[[int, int], np.ndarray]
"""Function of `top` and `bottom` that returns these rows of a field, (C, n, W) float in [0, 1]."""


def tile_starts(length: int, tile_size: int, tile_overlap: int) -> list[int]:
    """Return the first pixel of every tile along an axis; the last tile ends with the field.

    Args:
        length: Length of the axis, in pixels.
        tile_size: Length of a tile, in pixels.
        tile_overlap: Overlap of neighbouring tiles, in pixels.

    Example:
    ```python
    >>> tile_starts(600, 224, 64), tile_starts(100, 224, 64)
    ([0, 160, 320, 376], [0])

    ```
    """
    step = tile_size - tile_overlap
    return [0] if length <= tile_size else [*range(0, length - tile_size, step), length - tile_size]


def tile_weights(length: int, tile_size: int, tile_overlap: int) -> np.ndarray:
    """Return the weights of the tiles of an axis, (tiles, tile_size) float32; they sum to 1 at every pixel."""
    starts = tile_starts(length, tile_size, tile_overlap)
    offset = (np.arange(tile_size) + 0.5) / tile_size - 0.5
    weights = np.tile(np.exp(-0.5 * (offset / SIGMA) ** 2), (len(starts), 1))
    weights[1:, : tile_overlap // 4] = 0
    weights[:-1, tile_size - tile_overlap // 4 :] = 0
    total = np.zeros(max(length, tile_size))
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile_size] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start : start + tile_size]
    return weights.astype(np.float32)


def default_tile_overlap(tile_size: int, patch_size: int) -> int:
    """Return a quarter of the tile size, rounded to an even number of patches, and at most half of the tile size.

    Args:
        tile_size: Size of a tile, in pixels.
        patch_size: Size of a patch, in pixels.

    Example:
    ```python
    >>> default_tile_overlap(224, 16), default_tile_overlap(32, 16)
    (64, 16)

    ```
    """
    return 2 * min(patch_size * max(1, round(tile_size / 8 / patch_size)), tile_size // 4)


@torch.inference_mode()
def blend_tiles(
    predict: Callable[[torch.Tensor], torch.Tensor],
    rows: Rows,
    shape: tuple[int, int],
    *,
    tile_size: int,
    tile_overlap: int,
    multiple: int = 1,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, np.ndarray]]:
    """Compute the maps of a field from top to bottom; memory depends only on the width of the field.

    Args:
        predict: Function that maps a batch (B, C, h, w) float32 on `device` to maps (B, L, h, w).
        rows: Function that returns rows of the field.
        shape: Height and width of the field, in pixels.
        tile_size: Size of a tile, in pixels.
        tile_overlap: Overlap of neighbouring tiles, in pixels; smaller than a tile.
        multiple: Patch size, in pixels: a field smaller than a tile is mirrored up to a multiple of it.
        batch_size: Number of tiles in one forward pass.
        device: Device on which maps are computed and blended.

    Yields:
        Number of the first row of a band, and the band (L, n, W) float32.

    Raises:
        ValueError: If tiles overlap entirely, the field is empty, or the batch size is below 1.
    """
    height, width = shape
    if not 0 <= tile_overlap < tile_size:
        raise ValueError(f"tile_overlap must be at least 0 and smaller than tile_size {tile_size}, got {tile_overlap}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if height < 1 or width < 1:
        raise ValueError(f"the field is empty: {height} x {width} pixels")
    sizes = [min(tile_size, -(-length // multiple) * multiple) for length in shape]
    tops, lefts = (tile_starts(length, size, tile_overlap) for length, size in zip(shape, sizes, strict=True))
    down, across = (
        torch.from_numpy(tile_weights(length, size, tile_overlap)).to(device)
        for length, size in zip(shape, sizes, strict=True)
    )
    band: torch.Tensor | None = None
    for number, top in enumerate(tops):
        strip = pad_to_multiple(np.asarray(rows(top, min(top + sizes[0], height)), np.float32), multiple)
        strip = strip if len(lefts) == 1 else strip[:, :, :width]
        for some in np.array_split(
            np.arange(len(lefts)), -(-len(lefts) // batch_size)
        ):  # batches of equal size: a small last one is slow
            batch = np.stack([strip[:, :, lefts[at] : lefts[at] + sizes[1]] for at in some])
            maps = predict(torch.from_numpy(batch).to(device)).float()
            if band is None:
                band = maps.new_zeros(maps.shape[1], sizes[0], max(width, sizes[1]))
            for at, map in zip(some, maps, strict=True):
                weight = down[number][:, None] * across[at]
                band[:, :, lefts[at] : lefts[at] + sizes[1]].add_(map * weight)
        assert band is not None
        done = (tops[number + 1] if number + 1 < len(tops) else height) - top
        yield top, band[:, :done, :width].cpu().numpy()
        if number + 1 < len(tops):
            # A new array: the caller holds the old one.
            unfinished, band = band[:, done:], torch.zeros_like(band)
            band[:, : unfinished.shape[1]] = unfinished


def segment_rows(
    model: PreTrainedModel,
    rows: Rows,
    shape: tuple[int, int],
    *,
    tile_size: int | None = None,
    tile_overlap: int | None = None,
    batch_size: int = 8,
) -> Iterator[tuple[int, np.ndarray]]:
    """Predict the probabilities of every class in a field, a band of rows at a time (see `blend_tiles`).

    Args:
        model: A `StedFmForSemanticSegmentation`, on its device and in its dtype.
        rows: Function that returns scaled rows of the field.
        shape: Height and width of the field, in pixels.
        tile_size: Size of a tile, in pixels; by default the model's `image_size`.
        tile_overlap: Overlap of neighbouring tiles, in pixels; by default `default_tile_overlap`.
        batch_size: Number of tiles in one forward pass.

    Yields:
        Number of the first row of a band, and its probabilities (L, n, W) float32.

    Raises:
        ValueError: If the tile size is not a multiple of the patch size, or the overlap not smaller than a tile.
    """
    patch_size = model.config.patch_size
    size = model.config.image_size if tile_size is None else tile_size
    if size <= 0 or size % patch_size:
        raise ValueError(f"tile_size must be a multiple of the patch size {patch_size}, got {size}")

    def predict(pixel_values: torch.Tensor) -> torch.Tensor:
        return model.probabilities(model(pixel_values.to(model.dtype)).logits.float())

    yield from blend_tiles(
        predict,
        rows,
        shape,
        tile_size=size,
        tile_overlap=default_tile_overlap(size, patch_size) if tile_overlap is None else tile_overlap,
        multiple=patch_size,
        batch_size=batch_size,
        device=model.device,
    )


def segment_image(
    model: PreTrainedModel,
    image: np.ndarray,
    *,
    tile_size: int | None = None,
    tile_overlap: int | None = None,
    batch_size: int = 8,
) -> np.ndarray:
    """Predict the probabilities of every class in an image of any size, (L, H, W) float32.

    Args:
        model: A `StedFmForSemanticSegmentation` in evaluation mode.
        image: (C, H, W) float32 in [0, 1], from `StedFmImageProcessor.prepare`.
        tile_size: As for `segment_rows`.
        tile_overlap: As for `segment_rows`.
        batch_size: Number of tiles in one forward pass.

    Example:
    ```python
    >>> import numpy as np
    >>> from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation
    >>> model = StedFmForSemanticSegmentation(StedFmConfig(num_hidden_layers=4, num_labels=2)).eval()
    >>> segment_image(model, np.zeros((1, 300, 90), np.float32)).shape
    (2, 300, 90)

    ```
    """
    _, height, width = image.shape

    def rows(top: int, bottom: int) -> np.ndarray:
        return image[:, top:bottom]

    maps: np.ndarray | None = None
    for top, band in segment_rows(
        model, rows, (height, width), tile_size=tile_size, tile_overlap=tile_overlap, batch_size=batch_size
    ):
        if maps is None:
            maps = np.empty((len(band), height, width), band.dtype)
        maps[:, top : top + band.shape[1]] = band
    assert maps is not None
    return maps


__all__ = ["blend_tiles", "default_tile_overlap", "segment_image", "segment_rows", "tile_starts", "tile_weights"]
