"""Labelled images with a change applied, and their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stedfm_hf.evaluation.extractors import EncoderExtractor, Extractor
from stedfm_hf.evaluation.features import compute_features
from stedfm_hf.evaluation.robustness.counts import Calibration
from stedfm_hf.evaluation.robustness.families import Family
from stedfm_hf.images import StedImage
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.labelled.reading import ReadImage
from stedfm_hf.labels.sourced import sha256_of
from stedfm_hf.runs import UserError
from stedfm_hf.runs.executors import Workers

CHANGES_VERSION = 1
"""Version of the changes, part of the key of cached features. Increase it when a level changes pixels differently."""


@dataclass(frozen=True)
class ChangedReader:
    """Reader that changes each image after reading it.

    Attributes:
        reader: Reader of the unchanged images.
        image_ids: Id of the image by its row.
        family: Family of changes.
        level: Level of the change.
        calibration: Facts about the acquisition.
        seed: Random seed.
        unscaled: Whether the image is divided by the largest value of its integer type, for processors that do so with
            integers but leave floats unchanged.
    """

    reader: ReadImage = field(repr=False)
    image_ids: Mapping[int, str] = field(repr=False)
    family: Family
    level: float
    calibration: Calibration
    seed: int
    unscaled: bool = False

    def __call__(self, row: int) -> StedImage:
        """Read the image of a row and change it."""
        image = self.reader(row)
        changed = self.family.apply(
            image, self.level, calibration=self.calibration, seed=self.seed, image_id=self.image_ids[row]
        )
        if self.unscaled and np.issubdtype(image.array.dtype, np.integer) and changed is not image:
            return replace(changed, array=changed.array / np.float32(np.iinfo(image.array.dtype).max))
        return changed


def change_images(
    data: LabelledImages,
    family: Family,
    level: float,
    *,
    calibration: Calibration,
    seed: int = 0,
    unscaled: bool = False,
) -> LabelledImages:
    """Return labelled images that are changed when they are read.

    Args:
        data: Images.
        family: Family of changes.
        level: Level; the first returns `data`.
        calibration: Facts about the acquisition.
        seed: Random seed of the changes.
        unscaled: See `ChangedReader`.

    Example:
        >>> from stedfm_hf.evaluation.robustness.families import default_families
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.arange(16).reshape(4, 4)] * 2, list("ab"))
        >>> flip = default_families(Calibration(unit="px"), names=["flip"])[0]
        >>> change_images(data, flip, 1.0, calibration=Calibration(unit="px")).stored(0).array[0, 0].tolist()
        [3.0, 2.0, 1.0, 0.0]
    """
    if level == family.identity:
        return data
    seed = seed if family.random else 0
    key = repr((CHANGES_VERSION, type(family).__name__, family.name, float(level), seed, calibration, unscaled))
    image_ids = dict(zip(data.rows.tolist(), data.image_ids.tolist(), strict=True))
    reader = ChangedReader(data.reader, image_ids, family, level, calibration, seed, unscaled)
    return replace(data, reader=reader, fingerprint=sha256_of(data.fingerprint, key.encode()))


UNCHANGED = ("unchanged", 0.0)
"""Name and level of the unchanged images."""
LevelFeatures = dict[tuple[str, float, int], np.ndarray]
"""Features (n, d) by family, level and seed; also those of `UNCHANGED`."""


def changed_features(
    data: LabelledImages,
    extractor: Extractor,
    families: Sequence[Family],
    *,
    unchanged: np.ndarray | None,
    calibration: Calibration,
    seeds: Sequence[int],
    cache: Path | None,
    cluster: Workers | None = None,
) -> LevelFeatures:
    """Compute the features of the images at all levels of all families.

    Args:
        data: Images.
        extractor: Model or baseline.
        families: Families of changes.
        unchanged: Features of the unchanged images (n, d), if known.
        calibration: Facts about the acquisition.
        seeds: Random seeds. Changes that are not random are computed once.
        cache: Folder of cached features; None caches nothing.
        cluster: Open cluster that computes them; None computes them in this process.

    Raises:
        UserError: If an image cannot be read.
    """
    unscaled = isinstance(extractor, EncoderExtractor) and extractor.encoder.processor.normalization == "none"
    found: LevelFeatures = {}
    first = _features(data, extractor, cache, "unchanged", cluster) if unchanged is None else unchanged
    found |= {(*UNCHANGED, seed): first for seed in seeds}
    for family in families:
        for level in family.levels:
            for seed in seeds:
                if level == family.identity:
                    found[family.name, level, seed] = first
                elif family.random or seed == seeds[0]:
                    changed = change_images(data, family, level, calibration=calibration, seed=seed, unscaled=unscaled)
                    name = f"{family.name} {family.label(level)}"
                    found[family.name, level, seed] = _features(changed, extractor, cache, name, cluster)
                else:
                    found[family.name, level, seed] = found[family.name, level, seeds[0]]
    return found


def _features(
    data: LabelledImages, extractor: Extractor, cache: Path | None, name: str, cluster: Workers | None
) -> np.ndarray:
    """Compute the features of all images; refuse unreadable ones, which were excluded before."""
    features = compute_features(data, extractor, cache=cache, images=name, cluster=cluster)
    if features.failed:
        number, reason = next(iter(features.failed.items()))
        raise UserError(f"{data.image_ids[number]}: {reason}. The file changed while the command ran; run it again")
    return features.values
