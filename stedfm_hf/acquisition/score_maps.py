"""Score maps of images of any size, and the annotated patches of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch

from stedfm_hf.acquisition.examples import Examples, join, label_patches
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.interpretability.explainers import tile_tokens
from stedfm_hf.interpretability.fields import Tiles

TileTokens = tuple[int, list[int], np.ndarray]
"""First row of patches of the tiles of a batch, first column of patches of each, and tokens (b, rows, cols, D)."""
ROTATIONS = 4
"""Number of rotations by multiples of 90 degrees."""


class TokenScorer(Protocol):
    """Function of tokens, such as a finder or several finders."""

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Score tokens (n, D); (n, L) float32."""
        ...


def score_map(finder: TokenScorer, encoder: Encoder, tiles: Tiles, pixels: np.ndarray) -> np.ndarray:
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
        parts.append(label_tokens(embed_tiles(encoder, tiles, rotated), labels, objects, classes, source))
    return join(parts)


def embed_tiles(encoder: Encoder, tiles: Tiles, pixels: np.ndarray) -> Iterator[TileTokens]:
    """Embed the overlapping tiles of an image.

    Args:
        encoder: Encoder.
        tiles: Tiles of the image.
        pixels: Image (C, H, W), scaled.

    Yields:
        First row of patches of the tiles of a batch, first column of patches of each, and tokens (b, rows, cols, D).
    """
    for top, lefts, batch in tiles.batches(pixels):
        yield top, lefts, np.moveaxis(tile_tokens(encoder, tiles, batch).cpu().numpy(), 1, -1)


def label_tokens(
    batches: Iterable[TileTokens], labels: np.ndarray, objects: np.ndarray, classes: tuple[str, ...], source: int
) -> Examples:
    """Make examples of the tokens of an image.

    Args:
        batches: Tokens of its tiles, as of `embed_tiles`.
        labels: Labels of its patches (rows, cols), as of `label_patches`.
        objects: Numbers of the objects of its patches (rows, cols).
        classes: Names of the classes.
        source: Number of the source image.
    """
    found = []
    for top, lefts, tokens in batches:
        for left, values in zip(lefts, tokens, strict=True):
            rows, cols, dim = values.shape
            window = (slice(top, top + rows), slice(left, left + cols))
            found.append((values.reshape(-1, dim), labels[window].ravel(), objects[window].ravel()))
    flat, flat_labels, flat_objects = (np.concatenate(column) for column in zip(*found, strict=True))
    return Examples(classes, flat, flat_labels, flat_objects, np.full(len(flat), source))
