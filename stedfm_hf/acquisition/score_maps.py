"""Score maps of images of any size, and the annotated patches of images."""

from __future__ import annotations

import numpy as np
import torch

from stedfm_hf.acquisition.examples import Examples, join, label_patches
from stedfm_hf.acquisition.finders import Finder
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.interpretability.explainers import tile_tokens
from stedfm_hf.interpretability.fields import Tiles

ROTATIONS = 4
"""Number of rotations by multiples of 90 degrees."""


def score_map(finder: Finder, encoder: Encoder, tiles: Tiles, pixels: np.ndarray) -> np.ndarray:
    """Score every patch of an image; the scores of overlapping tiles are blended.

    Args:
        finder: Finder.
        encoder: Encoder that the finder was fitted with.
        tiles: Tiles of the image.
        pixels: Image (C, H, W), scaled; rows are read when they are used.

    Returns:
        Scores (L, rows, cols) float32, one map for each class of the finder.
    """

    def compute(batch: torch.Tensor) -> torch.Tensor:
        tokens = tile_tokens(encoder, tiles, batch).cpu().numpy()
        count, dim, rows, cols = tokens.shape
        scores = finder.scores(np.moveaxis(tokens, 1, -1).reshape(-1, dim))
        return torch.from_numpy(np.moveaxis(scores.reshape(count, rows, cols, -1), -1, 1).copy())

    return tiles.blend(compute, pixels).astype(np.float32)


def example_patches(
    encoder: Encoder,
    tiles: Tiles,
    pixels: np.ndarray,
    planes: np.ndarray,
    annotated: np.ndarray,
    classes: tuple[str, ...],
    source: int,
    *,
    rotations: bool = True,
) -> Examples:
    """Embed the patches of an annotated image, in every tile and rotation.

    Args:
        encoder: Encoder.
        tiles: Tiles of the image.
        pixels: Image (C, H, W), scaled.
        planes: Masks of the classes (L, H, W) bool.
        annotated: Pixels that were annotated (H, W) bool.
        classes: Names of the L classes.
        source: Number of the source image.
        rotations: Whether the image is also used rotated by 90, 180 and 270 degrees.
    """
    parts = []
    for number in range(ROTATIONS if rotations else 1):
        rotated, masks, known = (
            np.ascontiguousarray(np.rot90(each, number, axes=(-2, -1))) for each in (pixels, planes, annotated)
        )
        labels, objects = label_patches(masks, known, tiles.patch_size)
        found = []
        for top, lefts, batch in tiles.batches(rotated):
            tokens = np.moveaxis(tile_tokens(encoder, tiles, batch).cpu().numpy(), 1, -1)
            for left, values in zip(lefts, tokens, strict=True):
                rows, cols, dim = values.shape
                window = (slice(top, top + rows), slice(left, left + cols))
                flat = labels[window].ravel(), objects[window].ravel()
                found.append((values.reshape(-1, dim), *flat))
        tokens, flat_labels, flat_objects = (np.concatenate(column) for column in zip(*found, strict=True))
        parts.append(Examples(classes, tokens, flat_labels, flat_objects, np.full(len(tokens), source)))
    return join(parts)
