"""Features of labelled images, computed once for each model and data set and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stedfm_hf.evaluation.baselines import fit_components
from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.evaluation.knn import zscore_by
from stedfm_hf.images import StedImage
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.labelled.reading import ReadImage
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import Progress, UserError, atomic_path
from stedfm_hf.runs.download import cache_folder
from stedfm_hf.runs.executors import Workers, run_calls
from stedfm_hf.runs.workers import open_workers

BATCH = 256
"""Largest number of images whose features are computed in one call."""
FEATURES_VERSION = 2
"""Version of the cached files. Increase it when the features of the same images change."""


@dataclass(frozen=True, eq=False)
class ExtractedFeatures:
    """Features of the images of a data set.

    Attributes:
        values: Features (n, d) float32; rows of unreadable images are NaN.
        failed: Reason why an image could not be read, by its number.
    """

    values: np.ndarray
    failed: dict[int, str]


def compute_features(
    data: LabelledImages,
    extractor: Extractor,
    *,
    cache: Path | None = None,
    images: str = "",
    cluster: Workers | None = None,
) -> ExtractedFeatures:
    """Compute the features of all images, or read them from the cache.

    Args:
        data: Images.
        extractor: Model or baseline.
        cache: Folder of the cache, such as `features_folder`; None caches nothing.
        images: Name of the images in progress lines.
        cluster: Open cluster that computes them; None computes them in this process.

    Raises:
        UserError: If no image can be read, or features are not finite.
    """
    name = hashlib.sha256(
        json.dumps([FEATURES_VERSION, extractor.identity, data.fingerprint], sort_keys=True).encode()
    ).hexdigest()
    path = None if cache is None else cache / f"{name}.safetensors"
    if path is not None and (cached := _read(path, len(data))) is not None:
        return cached
    features = _compute(data, extractor, images, cluster)
    if path is not None:
        metadata = {
            "failed": json.dumps({str(number): reason for number, reason in features.failed.items()}),
            "made_by": json.dumps(extractor.identity, sort_keys=True),
            "data": data.name,
        }
        with atomic_path(path) as temporary:
            save_file({"features": features.values}, temporary, metadata=metadata)
    return features


SplitFeatures = Mapping[str, np.ndarray]
"""Features (n, d) of the images of each split, by the name of the split."""


def compute_split_features(
    splits: Splits[LabelledImages], extractor: Extractor, cache: Path | None, cluster: Workers | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Compute the features of all splits.

    Args:
        splits: Images of each split.
        extractor: Model or baseline.
        cache: Folder of the cache; None caches nothing.
        cluster: Open cluster that computes them; None computes them in this process.

    Returns:
        Features (n, d) of each split, and the reason why an image could not be read, by its image id.
    """
    named, failed = splits.named(), dict[str, str]()
    images = {data.fingerprint: data for data in named.values()}
    # Splits with the same images, as in leave-one-out, are computed once.
    by_fingerprint = {
        key: compute_features(data, extractor, cache=cache, cluster=cluster) for key, data in images.items()
    }
    for key, features in by_fingerprint.items():
        failed |= {str(images[key].image_ids[number]): reason for number, reason in features.failed.items()}
    return {name: by_fingerprint[data.fingerprint].values for name, data in named.items()}, failed


def exclude_images(
    splits: Splits[LabelledImages], features: Mapping[str, SplitFeatures], keep: np.ndarray
) -> tuple[Splits[LabelledImages], dict[str, dict[str, np.ndarray]]]:
    """Exclude unreadable images, and some test images, for all methods.

    Args:
        splits: Images of each split.
        features: Features of each split, by the key of the method.
        keep: Whether to keep each test image (n,) bool.

    Returns:
        The remaining images and their features.

    Raises:
        UserError: If no image of a split remains.
    """
    readable = {
        name: np.all([np.isfinite(each[name]).all(axis=1) for each in features.values()], axis=0)
        for name in splits.named()
    }
    readable["test"] &= keep
    for name, mask in readable.items():
        if not mask.any():
            raise UserError(
                f"{splits.train.name}: no image of the split {name} can be read. Check the files of the split"
            )
    return splits.take(readable), {
        key: {name: each[name][mask] for name, mask in readable.items()} for key, each in features.items()
    }


def features_folder() -> Path:
    """Return the default folder of cached features."""
    return cache_folder() / "features"


def _read(path: Path, count: int) -> ExtractedFeatures | None:
    """Read cached features; None if there is no file, it is damaged, or it is not of `count` images."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            features, metadata = file.get_tensor("features"), file.metadata() or {}
        failed = {int(number): str(reason) for number, reason in json.loads(metadata.get("failed", "{}")).items()}
    except (SafetensorError, OSError, ValueError):
        return None
    return ExtractedFeatures(features, failed) if len(features) == count else None


def _compute(data: LabelledImages, extractor: Extractor, which: str, cluster: Workers | None) -> ExtractedFeatures:
    """Compute the features of all images; unreadable images get NaN and are listed with their reasons.

    Raises:
        UserError: If no image can be read, or a feature is not finite.
    """
    failed: dict[int, str] = {}
    found: dict[int, list[np.ndarray]] = {}
    description = f"{extractor.name}, {which}" if which else extractor.name
    with open_workers(cluster) as workers, Progress(len(data), description=description) as progress:
        shown = None if workers.elsewhere else progress
        calls = ((first, data.rows[first : first + BATCH].tolist(), shown) for first in range(0, len(data), BATCH))
        extract = partial(_extract, data.reader, extractor)
        for (first, batch, _), (features, errors) in run_calls(extract, calls, workers=workers):
            found[first] = features
            failed |= errors
            if shown is None:
                progress.update(len(batch))
    failed = dict(sorted(failed.items()))
    rows = [row for first in sorted(found) for row in found[first]]
    if not rows:
        first = next((f". First error: {data.image_ids[number]}: {reason}" for number, reason in failed.items()), "")
        raise UserError(f"{data.name}: none of {len(data)} images can be used{first}")
    readable = np.stack(rows).astype(np.float32)
    if not np.isfinite(readable).all():
        raise UserError(
            f"{extractor.name}: the features of {data.name} are not finite. Check the weights of the model"
        )
    values = np.full((len(data), readable.shape[1]), np.nan, np.float32)
    values[[number for number in range(len(data)) if number not in failed]] = readable
    return ExtractedFeatures(values, failed)


def _extract(
    reader: ReadImage, extractor: Extractor, first: int, rows: Sequence[int], progress: Progress | None
) -> tuple[list[np.ndarray], dict[int, str]]:
    """Compute the features of a batch of images.

    Args:
        reader: Function that reads the image of a row.
        extractor: Model or baseline.
        first: Number of the first image.
        rows: Row of each image.
        progress: Progress to update with every image.

    Returns:
        Features (d,) of each readable image, and the reason why another one cannot be read, by its number.
    """
    failed: dict[int, str] = {}

    def images() -> Iterator[StedImage]:
        for number, row in enumerate(rows, first):
            if progress is not None:
                progress.update()
            try:
                yield reader(row)
            except (ValueError, OSError) as error:
                failed[number] = " ".join(str(error).split())

    return list(extractor.extract(images())), failed


def prepare_for_probe(train: np.ndarray, extractor: Extractor, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Standardise features, after a PCA if the extractor has one. Both are fitted on the training features.

    Args:
        train: Training features (n, d).
        extractor: Model or baseline, which defines the scaling and the number of principal components.
        *others: Further features (m, d) to transform in the same way.

    Returns:
        The transformed training features and others, float64.
    """
    sets = [features.astype(np.float64) for features in (train, *others)]
    if extractor.components is not None:
        components = fit_components(sets[0], components=extractor.components)
        sets = [components.transform(features) if len(features) else features[:, :0] for features in sets]
    mean, std = sets[0].mean(axis=0), sets[0].std(axis=0)
    if extractor.scaling == "whole":
        std = np.full_like(std, np.sqrt(np.mean(std**2)))
    std[std < 1e-12] = 1.0
    return tuple((features - mean) / std if len(features) else features for features in sets)


def prepare_for_search(
    gallery: np.ndarray, extractor: Extractor, *others: np.ndarray, zscore: bool
) -> tuple[np.ndarray, ...]:
    """Prepare features for cosine similarity: apply the PCA of the extractor, or standardise each feature.

    Args:
        gallery: Features (n, d) that the PCA or the standardisation is fitted on.
        extractor: Model or baseline. Features with different units are always standardised; principal components are
            scaled as for probes.
        *others: Further features (m, d) to transform in the same way.
        zscore: Whether to standardise the features of other methods.

    Returns:
        The transformed gallery and others.
    """
    if extractor.components is not None:
        return prepare_for_probe(gallery, extractor, *others)
    if zscore or extractor.mixed_units:
        return zscore_by(gallery, *others)
    return (gallery, *others)
