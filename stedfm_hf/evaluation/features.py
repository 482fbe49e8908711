"""Vectors of labelled images, computed once for each model and data set and kept between evaluations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stedfm_hf.evaluation.baselines import fit_components
from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.images import StedImage
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import Progress, UserError, atomic_path
from stedfm_hf.runs.download import cache_folder

FEATURES_VERSION = 1
"""Raised whenever vectors of the same images would come out otherwise: old ones in the cache are then passed over."""


@dataclass(frozen=True, eq=False)
class Features:
    """Vectors of images.

    Args:
        vectors: (n, d) float32; rows of images that could not be read are NaN.
        failed: number of the image and why it could not be read.
    """

    vectors: np.ndarray
    failed: dict[int, str]


def compute_features(data: LabelledImages, extractor: Extractor, *, cache: Path | None = None) -> Features:
    """Vectors of all images, from the cache (see :func:`features_folder`) where they are there already."""
    name = hashlib.sha256(
        json.dumps([FEATURES_VERSION, extractor.identity, data.fingerprint], sort_keys=True).encode()
    ).hexdigest()
    path = None if cache is None else cache / f"{name}.safetensors"
    if path is not None and (kept := _read(path, len(data))) is not None:
        return kept
    features = _compute(data, extractor)
    if path is not None:
        metadata = {
            "failed": json.dumps({str(number): reason for number, reason in features.failed.items()}),
            "made_by": json.dumps(extractor.identity, sort_keys=True),
            "data": data.name,
        }
        with atomic_path(path) as temporary:
            save_file({"vectors": features.vectors}, temporary, metadata=metadata)
    return features


Vectors = Mapping[str, np.ndarray]
"""Embeddings (n, d) of the images of each split, by its name."""


def vectors_of(
    splits: Splits[LabelledImages], extractor: Extractor, cache: Path | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the vectors of all splits, and the images that could not be read, with the reason."""
    named, failed = splits.named(), dict[str, str]()
    images = {data.fingerprint: data for data in named.values()}
    found = {key: compute_features(data, extractor, cache=cache) for key, data in images.items()}
    for key, features in found.items():
        failed |= {str(images[key].image_ids[number]): reason for number, reason in features.failed.items()}
    return {name: found[data.fingerprint].vectors for name, data in named.items()}, failed


def keep_usable(
    splits: Splits[LabelledImages], vectors: Mapping[str, Vectors], kept: np.ndarray
) -> tuple[Splits[LabelledImages], dict[str, dict[str, np.ndarray]]]:
    """Leave images out of all splits and of all models alike: those that could not be read, and some of the test."""
    good = {
        name: np.all([np.isfinite(each[name]).all(axis=1) for each in vectors.values()], axis=0)
        for name in splits.named()
    }
    good["test"] &= kept
    for name, mask in good.items():
        if not mask.any():
            raise UserError(f"{splits.train.name}: no image of {name} can be read")
    return splits.take(good), {
        key: {name: each[name][mask] for name, mask in good.items()} for key, each in vectors.items()
    }


def features_folder() -> Path:
    """Where vectors are kept unless told otherwise."""
    return cache_folder() / "features"


def _read(path: Path, count: int) -> Features | None:
    """Kept vectors; None where there are none, or the file is damaged and must be made again."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            vectors, metadata = file.get_tensor("vectors"), file.metadata() or {}
        failed = {int(number): str(reason) for number, reason in json.loads(metadata.get("failed", "{}")).items()}
    except (SafetensorError, OSError, ValueError):
        return None
    return Features(vectors, failed) if len(vectors) == count else None


def _compute(data: LabelledImages, extractor: Extractor) -> Features:
    failed: dict[int, str] = {}
    with Progress(len(data), description=extractor.name) as progress:

        def images() -> Iterator[StedImage]:
            for number in range(len(data)):
                progress.update()
                try:
                    yield data.stored(number)
                except (ValueError, OSError) as error:
                    failed[number] = " ".join(str(error).split())

        found = list(extractor.vectors(images()))
    if not found:
        raise UserError(f"{data.name}: none of {len(data)} images can be read ({next(iter(failed.values()), '')})")
    good = np.stack(found).astype(np.float32)
    if not np.isfinite(good).all():
        raise UserError(f"{extractor.name}: the vectors of {data.name} are not finite; are its weights damaged?")
    vectors = np.full((len(data), good.shape[1]), np.nan, np.float32)
    vectors[[number for number in range(len(data)) if number not in failed]] = good
    return Features(vectors, failed)


def prepare_for_probe(train: np.ndarray, extractor: Extractor, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Brings vectors into the form a probe takes: components and scale of the training part, nothing of the labels."""
    sets = [vectors.astype(np.float64) for vectors in (train, *others)]
    if extractor.components is not None:
        components = fit_components(sets[0], components=extractor.components)
        sets = [components.transform(vectors) if len(vectors) else vectors[:, :0] for vectors in sets]
    mean, spread = sets[0].mean(axis=0), sets[0].std(axis=0)
    if extractor.scaling == "whole":
        spread = np.full_like(spread, np.sqrt(np.mean(spread**2)))
    spread[spread < 1e-12] = 1.0
    return tuple((vectors - mean) / spread if len(vectors) else vectors for vectors in sets)
