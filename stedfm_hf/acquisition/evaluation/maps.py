"""Score maps of an image, and those of baselines that need no encoder."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from skimage.feature import match_template
from skimage.filters import threshold_otsu

from stedfm_hf.acquisition.collecting import AnnotatedField
from stedfm_hf.acquisition.score_maps import ROTATIONS
from stedfm_hf.evaluation.patches import block_means
from stedfm_hf.inference.one_image import at_pixels
from stedfm_hf.metrics.objects import components

REPEATS = 10
"""Number of random maps whose results are averaged."""
FOREGROUND = 0.1
"""Fraction of a patch above which Otsu's foreground covers it. Source: reference protocol."""
TEMPLATES_PER_IMAGE, TEMPLATES = 4, 4
"""Largest number of pixel templates of a class that an image gives, and that are used."""
TEMPLATE_PATCHES = 4
"""Largest height and width of a pixel template, in patches."""


@dataclass(frozen=True, eq=False)
class Maps:
    """Score maps of an image.

    Attributes:
        pixels: Scores of pixels (L, H, W).
        patches: Scores of patches (L, rows, cols); None if only pixels are evaluated.
    """

    pixels: np.ndarray
    patches: np.ndarray | None

    @classmethod
    def of_patches(cls, patches: np.ndarray, field: AnnotatedField) -> Maps:
        """Return the maps of scores of patches (L, rows, cols): every pixel has the score of its patch."""
        size = (float(field.patch_size),) * 2
        return cls(np.stack([at_pixels(each, field.shape, size) for each in patches]), patches)


class Baseline(ABC):
    """Score maps without an encoder.

    Attributes:
        name: Name in the report.
    """

    name: str

    def fit(self, images: Iterable[tuple[AnnotatedField, int, str]]) -> None:
        """Fit the baseline to annotated images, each with the number of its fold and its image id.

        By default nothing is fitted, and no image is read.
        """
        return

    @abstractmethod
    def maps(self, field: AnnotatedField, image_id: str, fold: int) -> list[Maps]:
        """Return the maps of an image; several of a random baseline, whose results are averaged.

        Args:
            field: Annotated image. Only `CoarsenedAnnotation`, and `PermutedPatches` their number, use its masks.
            image_id: Image id, on which random numbers depend.
            fold: Number of the fold of the image.
        """


class Intensity(Baseline):
    """Intensity of each pixel, and mean intensity of each patch."""

    name = "Intensity"

    def maps(self, field: AnnotatedField, image_id: str, fold: int) -> list[Maps]:
        """Return the intensities, equal for all classes."""
        return [_equal_maps(_plane(field), field)]


class OtsuForeground(Baseline):
    """Otsu's foreground: 0 or 1 for each pixel, and the fraction of each patch."""

    name = "Otsu foreground"

    def maps(self, field: AnnotatedField, image_id: str, fold: int) -> list[Maps]:
        """Return the foreground, equal for all classes."""
        return [_equal_maps(_foreground(field), field)]


class RandomPatches(Baseline):
    """Random order of the patches, in which those with Otsu's foreground precede the others.

    Args:
        seed: Random seed.
        everywhere: Whether all patches are in one random order, which is chance.
    """

    def __init__(self, seed: int, *, everywhere: bool = False) -> None:
        self.seed, self.everywhere = seed, everywhere
        self.name = "Chance" if everywhere else "Random patches of the foreground"

    def maps(self, field: AnnotatedField, image_id: str, fold: int) -> list[Maps]:
        """Return random scores, equal for all classes."""
        rng = _random(self.seed, image_id)
        first = np.zeros(field.labels.shape) if self.everywhere else _foreground_patches(field)
        found = [rng.random(first.shape) + first for _ in range(REPEATS)]
        return [Maps.of_patches(np.repeat(each[None], len(field.planes), axis=0), field) for each in found]


@dataclass(frozen=True)
class PermutedPatches(Baseline):
    """Patches of each class, permuted among those with Otsu's foreground.

    Source: reference protocol, random patches.

    Attributes:
        seed: Random seed.
    """

    seed: int
    name = "Random patches of the foreground"

    def maps(self, field: AnnotatedField, image_id: str, fold: int) -> list[Maps]:
        """Return permuted patches: 1 for those of a class, 0 for others."""
        rng, allowed, found = _random(self.seed, image_id), _foreground_patches(field), []
        truth = _touched(field)
        for _ in range(REPEATS):
            permuted = np.zeros_like(truth)
            for before, after in zip(truth, permuted, strict=True):
                after[allowed] = rng.permutation(before[allowed])
            found.append(Maps.of_patches(permuted.astype(np.float64), field))
        return found


class CoarsenedAnnotation(Baseline):
    """Fraction of each patch that the annotation covers: no map of patches ranks pixels better.

    Args:
        touched: Whether patches that the annotation touches are 1, as in the reference protocol (naive annotation).
    """

    name = "Annotation in patches"

    def __init__(self, *, touched: bool = False) -> None:
        self.touched = touched

    def maps(self, field: AnnotatedField, image_id: str, fold: int) -> list[Maps]:
        """Return the coverage of each patch, or whether it is touched."""
        covered = np.moveaxis(block_means(field.planes, field.patch_size), -1, 0)
        return [Maps.of_patches((covered > 0).astype(np.float64) if self.touched else covered, field)]


@dataclass(eq=False)
class TemplateMatching(Baseline):
    """Largest normalised cross-correlation of the pixels with annotated objects of other folds, in four rotations.

    Attributes:
        folds: Number of folds.
        seed: Random seed of the choice of templates.
        templates: Pixels of objects (h, w) by fold and number of the class; filled by `fit`.
    """

    folds: int
    seed: int
    templates: list[dict[int, list[np.ndarray]]] = field(default_factory=list)
    name = "Template matching of pixels"

    def fit(self, images: Iterable[tuple[AnnotatedField, int, str]]) -> None:
        """Cut some objects out of the images, and choose some of those of the other folds for each fold.

        A template is an object with a margin of half a patch, up to `TEMPLATE_PATCHES`.

        Args:
            images: Annotated images, each with the number of its fold and its image id.
        """
        cut = [(fold, _objects(each, _random(self.seed, image_id))) for each, fold, image_id in images]
        for held_out in range(self.folds):
            others = [found for fold, found in cut if fold != held_out]
            self.templates.append({})
            for number in range(len(cut[0][1])):
                all_of_class = [each for found in others for each in found[number]]
                order = np.random.default_rng([self.seed, held_out, number]).permutation(len(all_of_class))
                self.templates[-1][number] = [all_of_class[index] for index in sorted(order[:TEMPLATES].tolist())]

    def maps(self, field: AnnotatedField, image_id: str, fold: int) -> list[Maps]:
        """Return the correlation of each pixel, and the largest one of each patch."""
        plane, found = _plane(field), []
        for number in range(len(field.planes)):
            best = np.full(plane.shape, -1.0)
            for template in self.templates[fold][number]:
                for turns in range(ROTATIONS):
                    rotated = np.rot90(template, turns)[: plane.shape[0], : plane.shape[1]]
                    np.maximum(best, match_template(plane, rotated, pad_input=True), out=best)
            found.append(best)
        pixels = np.stack(found)
        return [Maps(pixels, np.stack([_block_maxima(each, field.patch_size) for each in pixels]))]


def make_baselines(names: Sequence[str], folds: int, seed: int, *, reference: bool) -> dict[str, Baseline]:
    """Make the baselines that need no encoder.

    Args:
        names: Names of `FIND_BASELINES`; `untrained` is left out.
        folds: Number of folds.
        seed: Random seed.
        reference: Whether random patches are those of the reference protocol.
    """
    known: dict[str, Callable[[], Baseline]] = {
        "intensity": Intensity,
        "otsu": OtsuForeground,
        "template-matching": lambda: TemplateMatching(folds, seed),
        "random-patches": lambda: PermutedPatches(seed) if reference else RandomPatches(seed),
        "chance": lambda: RandomPatches(seed, everywhere=True),
        "coarsened": lambda: CoarsenedAnnotation(touched=reference),
    }
    return {name: known[name]() for name in names if name in known}


def _objects(field: AnnotatedField, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Return the pixels (h, w) of at most `TEMPLATES_PER_IMAGE` objects of each class."""
    plane, found = _plane(field), list[list[np.ndarray]]()
    for mask in field.planes:
        objects = ndimage.find_objects(components(mask & field.annotated))
        chosen = rng.permutation(len(objects))[:TEMPLATES_PER_IMAGE]
        found.append([plane[_around(objects[index], field)] for index in sorted(chosen.tolist())])
    return found


def _around(part: tuple[slice, ...], field: AnnotatedField) -> tuple[slice, slice]:
    """Return the rows and columns of a template around an object."""
    sides = []
    for each, length in zip(part, field.shape, strict=True):
        size = min(each.stop - each.start + field.patch_size, TEMPLATE_PATCHES * field.patch_size)
        size = min(size, length)
        first = int(np.clip((each.start + each.stop - size) // 2, 0, length - size))
        sides.append(slice(first, first + size))
    return sides[0], sides[1]


def _equal_maps(plane: np.ndarray, field: AnnotatedField) -> Maps:
    """Return the maps of a quantity (H, W) that is the same for all classes."""
    patches = block_means(plane[None], field.patch_size)[..., 0]
    count = len(field.planes)
    return Maps(np.repeat(plane[None], count, axis=0), np.repeat(patches[None], count, axis=0))


def _plane(field: AnnotatedField) -> np.ndarray:
    """Return the mean of the channels (H, W) float64."""
    return np.asarray(field.pixels, np.float64).mean(axis=0)


def _foreground(field: AnnotatedField) -> np.ndarray:
    """Return Otsu's foreground (H, W) float64; nothing of a constant image."""
    plane = _plane(field)
    return (plane > threshold_otsu(plane)).astype(np.float64)


def _foreground_patches(field: AnnotatedField) -> np.ndarray:
    """Return the patches that Otsu's foreground covers (rows, cols) bool."""
    return np.asarray(block_means(_foreground(field)[None], field.patch_size)[..., 0] > FOREGROUND)


def _touched(field: AnnotatedField) -> np.ndarray:
    """Return the patches that each class touches (L, rows, cols) bool."""
    return np.moveaxis(block_means(field.planes, field.patch_size) > 0, -1, 0)


def _block_maxima(plane: np.ndarray, patch_size: int) -> np.ndarray:
    """Return the largest value of each patch (rows, cols) of a plane (H, W)."""
    starts = [np.arange(0, length, patch_size) for length in plane.shape]
    return np.asarray(np.maximum.reduceat(np.maximum.reduceat(plane, starts[0], axis=0), starts[1], axis=1))


def _random(seed: int, image_id: str) -> np.random.Generator:
    """Return random numbers that depend on the seed and the image only."""
    return np.random.default_rng([seed, zlib.crc32(image_id.encode("utf-8", "surrogatepass"))])
