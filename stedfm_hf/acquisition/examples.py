"""Annotated patches that finders are fitted to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from skimage import measure

from stedfm_hf.evaluation.patches import COVERED, block_means
from stedfm_hf.runs import UserError

BACKGROUND, UNLABELLED = 0, -1
"""Labels of patches without a class: annotated as background, and not annotated."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Patch tokens of annotated images.

    Attributes:
        classes: Names of the L classes, without the background.
        tokens: Patch tokens (n, D) float32.
        labels: Class of each patch from 1, 0 for background, or -1 for a patch that is not annotated (n,) int64.
        objects: Number of the annotated object of each patch, or 0 (n,) int64; each rotation is a separate object.
        sources: Number of the source image of each patch (n,) int64.
    """

    classes: tuple[str, ...]
    tokens: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    sources: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, kept: np.ndarray) -> Examples:
        """Return the patches at numbers (k,) or where a mask (n,) is true."""
        columns = {name: getattr(self, name)[kept] for name in ("tokens", "labels", "objects", "sources")}
        return replace(self, **columns)

    def part(self, most: int, rng: np.random.Generator) -> Examples:
        """Return a random part of the patches.

        Patches of the classes are kept first, up to half of the part, then those of the background, then the others.

        Args:
            most: Largest number of patches.
            rng: Random number generator.
        """
        if len(self) <= most:
            return self
        order = np.lexsort((rng.random(len(self)), -np.minimum(self.labels, 1)))
        shown, known = int((self.labels > BACKGROUND).sum()), int((self.labels >= BACKGROUND).sum())
        first = min(shown, most // 2)  # without this limit, many patches of the classes would leave no background
        order = np.concatenate([order[:first], order[shown:known], order[first:shown], order[known:]])
        return self.take(np.sort(order[:most]))

    def needs_background(self) -> None:
        """Refuse clicks of the background that mark no patch.

        Raises:
            UserError: If no patch is background.
        """
        if not (self.labels == BACKGROUND).any():
            raise UserError(
                "no patch is background, because all patches at the clicks of the class background touch a structure; "
                "click the background further away from the structures"
            )

    def missing(self) -> list[str]:
        """Return the names of the classes without a patch."""
        return [name for number, name in enumerate(self.classes, 1) if not (self.labels == number).any()]


def join(parts: list[Examples]) -> Examples:
    """Concatenate the examples of several images; objects are numbered on.

    Args:
        parts: Examples with the same classes, at least one.
    """
    columns = {name: [getattr(each, name) for each in parts] for name in ("tokens", "labels", "sources")}
    objects, count = [], 0
    for each in parts:
        objects.append(np.where(each.objects > 0, each.objects + count, 0))
        count += int(each.objects.max(initial=0))
    arrays = {name: np.concatenate(column) for name, column in columns.items()}
    return Examples(parts[0].classes, objects=np.concatenate(objects), **arrays)


def label_patches(planes: np.ndarray, annotated: np.ndarray, patch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Assign a class and an object to the patches of an image.

    A patch belongs to an object (a connected component of a class) if the object covers it at least half as much as
    the patch that it covers most. Patches that no class touches are background if at least half of their pixels, or
    half as much as in the patch with the most pixels of the same annotated area, are annotated: so a click of the
    background marks a patch wherever it is. The others are not annotated.

    Args:
        planes: Masks of the classes (L, H, W) bool.
        annotated: Pixels that were annotated (H, W) bool.
        patch_size: Size of a patch, in pixels.

    Returns:
        Labels (rows, cols) int64 as in `Examples`, and numbers of objects (rows, cols) int64.

    Example:
        >>> plane = np.zeros((1, 4, 8), bool)
        >>> plane[0, :3, :3] = True
        >>> labels, objects = label_patches(plane, np.ones((4, 8), bool), 2)
        >>> labels.tolist(), objects.tolist()
        ([[1, 1, 0, 0], [1, -1, 0, 0]], [[1, 1, 0, 0], [1, 0, 0, 0]])
    """
    shown = np.asarray(planes.any(axis=0))
    touched = block_means(shown[None], patch_size)[..., 0]
    known = block_means(annotated[None], patch_size)[..., 0]
    is_background = (touched == 0) & ((known >= COVERED) | _mostly_annotated(annotated & ~shown, known, patch_size))
    labels = np.where(is_background, BACKGROUND, UNLABELLED)
    objects, most = np.zeros_like(labels), np.zeros(labels.shape)
    count = 0
    for number, plane in enumerate(planes & annotated, 1):
        components = measure.label(plane)
        rows, cols = np.nonzero(components)
        if not len(rows):
            continue
        patches = np.ravel_multi_index((rows // patch_size, cols // patch_size), labels.shape)
        pairs, covered = np.unique(np.stack([components[rows, cols], patches]), axis=1, return_counts=True)
        largest = np.zeros(components.max() + 1)
        np.maximum.at(largest, pairs[0], covered)
        kept = (covered >= largest[pairs[0]] / 2) & (covered > most.flat[pairs[1]])
        # In the order of coverage: of two objects in a patch, the one that covers more of it is assigned last.
        order = np.flatnonzero(kept)[np.argsort(covered[kept], kind="stable")]
        where = pairs[1][order]
        labels.flat[where], objects.flat[where], most.flat[where] = number, pairs[0][order] + count, covered[order]
        count += int(components.max())
    return labels, objects


def _mostly_annotated(background: np.ndarray, known: np.ndarray, patch_size: int) -> np.ndarray:
    """Return which patches are annotated at least half as much as another one of the same area of background.

    Args:
        background: Pixels that were annotated as background (H, W) bool.
        known: Fraction of each patch that was annotated (rows, cols).
        patch_size: Size of a patch, in pixels.
    """
    found = np.zeros(known.shape, bool)
    if not ((known > 0) & (known < COVERED)).any():
        return found
    areas = measure.label(background)
    rows, cols = np.nonzero(areas)
    patches = rows // patch_size, cols // patch_size
    largest = np.zeros(areas.max() + 1)
    np.maximum.at(largest, areas[rows, cols], known[patches])
    kept = known[patches] >= largest[areas[rows, cols]] / 2
    found[patches[0][kept], patches[1][kept]] = True
    return found
