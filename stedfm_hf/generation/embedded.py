"""Embedded images with their targets: the input of the fit of a direction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stedfm_hf.evaluation.extractors import EncoderExtractor, load_extractors
from stedfm_hf.evaluation.features import compute_features, features_folder
from stedfm_hf.evaluation.morphology import PIXEL_SIZE_UM, morphology_features
from stedfm_hf.generation.settings import AttributeFitSettings
from stedfm_hf.labels.labelled import LabelledImages, read_labelled
from stedfm_hf.runs import Manifest, UserError, manifest_path
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.weights.models import ModelSource

MEMBERSHIPS, FEATURES = "memberships.parquet", "features.parquet"
"""Tables in the result of `stedfm cluster`."""


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Embeddings of images with the targets of an attribute.

    Attributes:
        embeddings: Embeddings (n, d) float32.
        target: Class of each image (n,) str, or number (n,) float64.
        sources: Source image of each image (n,) str.
        name: Name of the data.
        model: Name of the encoder.
        weights_sha256: SHA-256 of its weights.
        measured: Attributes measured in the images (n,) float64, by name.
    """

    embeddings: np.ndarray
    target: np.ndarray
    sources: np.ndarray
    name: str
    model: str
    weights_sha256: str | None
    measured: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def has_classes(self) -> bool:
        """Whether the targets are classes."""
        return self.target.dtype.kind == "U"

    def take(self, keep: np.ndarray) -> EmbeddedImages:
        """Return some of the images; `keep` is a mask (n,) bool."""
        return replace(
            self,
            embeddings=self.embeddings[keep],
            target=self.target[keep],
            sources=self.sources[keep],
            measured={name: values[keep] for name, values in self.measured.items()},
        )


def is_cluster_result(folder: str | Path) -> bool:
    """Return whether a folder is a result of `stedfm cluster`."""
    record = manifest_path(folder, folder=True)
    return record.is_file() and Manifest.load(record).command == "cluster"


def read_clusters(folder: str | Path) -> EmbeddedImages:
    """Read the embeddings and leaves of a result of `stedfm cluster`.

    Args:
        folder: Result folder.

    Raises:
        UserError: It is not finished, or not of embeddings.
    """
    path, manifest = Path(folder), Manifest.load(manifest_path(folder, folder=True))
    if manifest.settings.get("features") != "embedding":
        raise UserError(f"{folder}: holds clusters of {manifest.settings.get('features')}, not of embeddings")
    missing = [name for name in (MEMBERSHIPS, FEATURES) if not (path / name).is_file()]
    if missing:
        raise UserError(f"{folder}: has no {' and '.join(missing)}; run its command again")
    leaves, features = pq.read_table(path / MEMBERSHIPS), pq.read_table(path / FEATURES)
    column = features["features"].combine_chunks()
    return EmbeddedImages(
        column.flatten().to_numpy().reshape(len(column), -1),
        np.array(leaves["leaf"].to_pylist(), str),
        np.array([str(each) for each in leaves["source"].to_pylist()]),
        path.resolve().name,
        str(manifest.model or manifest.options.get("model") or ""),
        manifest.weights_sha256,
        {},
    )


def embed_labelled(settings: AttributeFitSettings, model: ModelSource) -> EmbeddedImages:
    """Embed the labelled images of a data set, with the attributes that the direction shall be orthogonal to.

    Args:
        settings: Settings of the fit.
        model: Encoder.

    Raises:
        UserError: The labels are missing or unusable, or no image can be read.
    """
    splits = read_labelled(
        settings.dataset,
        settings.split,
        target=settings.target,
        series=settings.series,
        channel=settings.channel,
        source_pattern=settings.source_pattern,
    )
    with quiet_transformers():
        (extractor,) = load_extractors(
            [model],
            [],
            data=next(iter(splits.values())),
            device=settings.device,
            batch_size=settings.batch_size,
        )
    if not isinstance(extractor, EncoderExtractor):
        raise UserError(f"model {model.given}: is not a STED-FM encoder")
    cache = features_folder() if settings.cache == "auto" else settings.cache and Path(settings.cache)
    wanted = [name for name in settings.orthogonal_to if name in MEASURES]
    parts = [_embed(data, extractor, cache or None, wanted) for data in splits.values()]
    return replace(
        parts[0],
        embeddings=np.concatenate([part.embeddings for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        sources=np.concatenate([part.sources for part in parts]),
        measured={name: np.concatenate([part.measured[name] for part in parts]) for name in wanted},
    )


def _embed(data: LabelledImages, extractor: EncoderExtractor, cache: Path | None, wanted: list[str]) -> EmbeddedImages:
    """Embed the readable images of a split, and measure the wanted attributes."""
    if data.task == "multilabel":
        raise UserError(f"{data.name}: the labels are multilabel; give one class or one number per image")
    features = compute_features(data, extractor, cache=cache)
    readable = np.isfinite(features.values).all(axis=1)
    target = np.array(data.classes)[data.labels] if data.task == "classes" else data.labels
    numbers = np.flatnonzero(readable)
    measured = {name: np.array([MEASURES[name](data.image(int(n))[0]) for n in numbers]) for name in wanted}
    return EmbeddedImages(
        features.values[readable],
        target[readable],
        data.sources[readable],
        data.name,
        extractor.encoder.name,
        extractor.encoder.weights_sha256,
        measured,
    )


def _brightness(image: np.ndarray) -> float:
    return float(image.mean())


def _spots(image: np.ndarray) -> float:
    """Return the number of bright spots per megapixel."""
    return float(morphology_features([image], pixel_size_um=PIXEL_SIZE_UM).objects[0]) / image.size * 1e6


MEASURES = {"brightness": _brightness, "density": _spots}
"""Function that measures an attribute of a scaled image (H, W), by name."""
