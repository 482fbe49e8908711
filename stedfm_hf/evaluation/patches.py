"""Patches of annotated images: their positions, their classes and their features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import maximum_filter

from stedfm_hf.evaluation.extractors import DEFAULT_PROCESSOR, EncoderExtractor, Extractor
from stedfm_hf.evaluation.segmentation.scores import target_masks
from stedfm_hf.images import StedImage
from stedfm_hf.labels.annotated import AnnotatedImages

COVERED = 0.5
"""Fraction of a patch from which on a class covers it; also the smallest value of a pixel of the class."""
_BINS = 32


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of several images, image by image.

    Attributes:
        image: Number of the image of each patch (n,) int.
        row, col: Position of each patch in the grid of its image (n,) int.
        query: Whether a class covers the patch, so that it may be a query of the class (n, L) bool.
        relevant: Whether the patch is relevant for queries of a class (n, L) bool.
        kept: Whether to use each patch of the grid of each image (rows * cols,) bool: without patches that are not
            annotated, and without the border in the reference protocol. The other fields hold the used patches only.
    """

    image: np.ndarray
    row: np.ndarray
    col: np.ndarray
    query: np.ndarray
    relevant: np.ndarray
    kept: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.image)


def patches_of(data: AnnotatedImages, patch_size: int, *, reference: bool = False) -> Patches:
    """Assign classes to the patches of images.

    Args:
        data: Annotated images.
        patch_size: Height and width of a patch, in pixels.
        reference: Whether a patch is relevant for a class if any pixel of its 3 x 3 neighbourhood belongs to it, and
            the border of the grid is left out. By default, a patch is relevant if the class covers half of it.

    Returns:
        The annotated patches.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    grids = []
    for number in range(len(data)):
        planes, annotated = target_masks(data, number)
        covered, known = block_means(planes, patch_size), block_means(annotated[None], patch_size)[..., 0]
        rows, cols = known.shape
        kept = known >= COVERED
        query = covered >= COVERED
        relevant = query
        if reference:
            kept[[0, -1]] = kept[:, [0, -1]] = False
            shown = block_means((planes >= COVERED) & annotated, patch_size) > 0
            relevant = maximum_filter(shown, (3, 3, 1))
        row, col = np.indices((rows, cols))
        parts.append((np.full(kept.sum(), number), row[kept], col[kept], query[kept], relevant[kept]))
        grids.append(kept.ravel())
    image, row, col, query, relevant = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Patches(image, row, col, query, relevant, grids)


def block_means(planes: np.ndarray, patch_size: int) -> np.ndarray:
    """Average masks over the patches of a grid; pixels beyond the border do not count.

    Args:
        planes: Masks (L, H, W).
        patch_size: Height and width of a patch, in pixels.

    Returns:
        Means (rows, cols, L) float64.

    Example:
        >>> block_means(np.array([[[1, 1, 0], [1, 1, 1]]]), 2)[..., 0].tolist()
        [[1.0, 0.5]]
    """
    values = np.asarray(planes, np.float64)
    total = _blocks(values, patch_size).sum(axis=(-2, -1))
    count = _blocks(np.ones((1, *values.shape[1:])), patch_size).sum(axis=(-2, -1))
    return np.moveaxis(total / count, 0, -1)


def _blocks(pixels: np.ndarray, patch_size: int, mode: Literal["constant", "symmetric"] = "constant") -> np.ndarray:
    """Cut an image (C, H, W) into patches (C, rows, cols, patch_size, patch_size), after padding to whole patches."""
    channels, height, width = pixels.shape
    padding = ((0, 0), (0, -height % patch_size), (0, -width % patch_size))
    padded = np.pad(pixels, padding, mode=mode)
    rows, cols = padded.shape[1] // patch_size, padded.shape[2] // patch_size
    return padded.reshape(channels, rows, patch_size, cols, patch_size).swapaxes(2, 3)


def patch_features(extractor: Extractor, images: Iterable[StedImage], patch_size: int) -> Iterator[np.ndarray]:
    """Yield the features (rows * cols, D) of the patches of each image.

    Args:
        extractor: Encoder, whose patch tokens are used, or a baseline: "histogram" (square root of the normalised
            intensity histogram of the patch, 32 bins) or "pixels" (its pixels).
        images: Images.
        patch_size: Height and width of a patch, in pixels.
    """
    if isinstance(extractor, EncoderExtractor):
        for tokens in extractor.extract_patches(images):
            yield tokens.reshape(-1, tokens.shape[-1])
        return
    for image in images:
        blocks = _blocks(np.clip(DEFAULT_PROCESSOR.prepare(image), 0, 1), patch_size, "symmetric")
        flat = np.moveaxis(blocks, 0, 2).reshape(blocks.shape[1] * blocks.shape[2], blocks.shape[0], -1)
        if extractor.key == "histogram":
            levels = np.minimum(flat * _BINS, _BINS - 1).astype(np.int64)
            cells = np.arange(len(flat) * flat.shape[1]).reshape(*flat.shape[:2], 1) * _BINS + levels
            counts = np.bincount(cells.ravel(), minlength=len(flat) * flat.shape[1] * _BINS)
            flat = np.sqrt(counts.reshape(*flat.shape[:2], _BINS) / flat.shape[2])
        yield flat.reshape(len(flat), -1).astype(np.float32)


def sample_queries(patches: Patches, classes: list[int], per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample the queries of each class without replacement.

    Args:
        patches: Patches.
        classes: Numbers of the classes, without the background.
        per_class: Largest number of queries of a class.
        seed: Random seed.

    Returns:
        Number of the patch of each query (m,), and its class as an index into `classes` (m,).
    """
    numbers, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for index, number in enumerate(classes):
        found = np.flatnonzero(patches.query[:, number])
        rng = np.random.default_rng([seed, index])
        sample = np.sort(rng.permutation(found)[:per_class])
        numbers.append(sample)
        labels.append(np.full(len(sample), index))
    return np.concatenate(numbers), np.concatenate(labels)
