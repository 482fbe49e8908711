"""Embedded images with their targets: the input of the fit of a direction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stedfm_hf.evaluation.extractors import EncoderExtractor, encoder_extractor
from stedfm_hf.evaluation.features import compute_features, features_folder
from stedfm_hf.evaluation.morphology import PIXEL_SIZE_UM, morphology_features
from stedfm_hf.generation.loading import load_pipeline
from stedfm_hf.generation.names import find_pipeline, is_pipeline
from stedfm_hf.generation.settings import AttributeFitSettings
from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import load_encoder
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.reading import read_labelled_images
from stedfm_hf.labels.sourced import sha256_of
from stedfm_hf.modeling.conditioning_stedfm import fingerprint
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs import Manifest, UserError, manifest_path
from stedfm_hf.weights.models import find_model
from stedfm_hf.weights.packaged import packaged_name

MEMBERSHIPS, FEATURES = "memberships.parquet", "features.parquet"
"""Tables in the result of `stedfm cluster`."""
_SAMPLE = 32
"""Number of images whose size is compared."""


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
        encoder_fingerprint: Fingerprint of the encoder, or None if it is not known.
        size_px: Height and width of the images in pixels, or None if unknown or different.
        failed: Reason why an image was left out, by its name.
    """

    embeddings: np.ndarray
    target: np.ndarray
    sources: np.ndarray
    name: str
    model: str
    weights_sha256: str | None
    measured: dict[str, np.ndarray]
    encoder_fingerprint: str | None = None
    size_px: int | None = None
    failed: dict[str, str] = field(default_factory=dict)

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


def read_clusters(settings: AttributeFitSettings) -> EmbeddedImages:
    """Read the embeddings and leaves of a result of `stedfm cluster`.

    Args:
        settings: Settings of the fit; `dataset` is the result, and `model` that of its embeddings.

    Raises:
        UserError: It is not finished, not of embeddings, or of those of another model.
    """
    folder = settings.dataset
    path, manifest = Path(folder), Manifest.load(manifest_path(folder, folder=True))
    if manifest.settings.get("features") != "embedding":
        raise UserError(f"{folder}: holds clusters of {manifest.settings.get('features')}, not of embeddings")
    missing = [name for name in (MEMBERSHIPS, FEATURES) if not (path / name).is_file()]
    if missing:
        raise UserError(f"{folder}: has no {' and '.join(missing)}; run its command again")
    leaves, features = pq.read_table(path / MEMBERSHIPS), pq.read_table(path / FEATURES)
    column = features["features"].combine_chunks()
    model, digest = str(manifest.options.get("model") or ""), manifest.options.get("weights_sha256")
    return EmbeddedImages(
        column.flatten().to_numpy().reshape(len(column), -1),
        np.array(leaves["leaf"].to_pylist(), str),
        np.array([str(each) for each in leaves["source"].to_pylist()]),
        path.resolve().name,
        model,
        digest,
        {},
        _fingerprint_of_clusters(settings, model, digest),
    )


def _fingerprint_of_clusters(settings: AttributeFitSettings, model: str, weights_sha256: str | None) -> str | None:
    """Return the fingerprint of the encoder of clusters: the given one, or a packaged one; else None.

    Raises:
        UserError: If another model than that of the clusters is given.
    """
    name = settings.model or packaged_name(model)
    if name is None:
        return None
    device = settings.device
    encoder = load_pipeline(name, device=device).encoder if is_pipeline(name) else load_encoder(name, device=device)
    if encoder.weights_sha256 == weights_sha256:
        return fingerprint(encoder.model)
    if settings.model is None:
        return None
    raise UserError(
        f"model {name}: has other weights than the model of {settings.dataset}, {model}; give that model, or leave "
        "out --model"
    )


def embed_labelled(settings: AttributeFitSettings) -> EmbeddedImages:
    """Embed the labelled images of a data set, with the attributes that the direction shall be orthogonal to.

    Args:
        settings: Settings of the fit.

    Raises:
        UserError: The model cannot be loaded, the labels are missing or unusable, or no image can be used.
    """
    # Wrong names are reported before the images are read.
    source = None if is_pipeline(settings.model) else find_model(settings.model)
    if source is None:
        find_pipeline(str(settings.model))
    splits = read_labelled_images(settings, settings.split)
    if source is not None:
        encoder = load_encoder(source, device=settings.device)
        shown, name, size = source.given, encoder.name, _common_size(splits.values(), encoder.processor)
    else:
        loaded = load_pipeline(str(settings.model), device=settings.device)
        encoder, size = loaded.encoder, loaded.size_px
        shown = name = f"encoder of {loaded.name}"
        splits = {split: _of_size(data, encoder.processor, size, loaded.name) for split, data in splits.items()}
    extractor = encoder_extractor(shown, shown, encoder, settings.batch_size)
    cache = features_folder() if settings.cache == "auto" else settings.cache and Path(settings.cache)
    wanted = [each for each in settings.orthogonal_to if each in MEASURES]
    parts = [_embed(data, extractor, cache or None, wanted) for data in splits.values()]
    return replace(
        parts[0],
        embeddings=np.concatenate([part.embeddings for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        sources=np.concatenate([part.sources for part in parts]),
        measured={each: np.concatenate([part.measured[each] for part in parts]) for each in wanted},
        model=name,
        encoder_fingerprint=fingerprint(encoder.model),
        size_px=size,
        failed={image: reason for part in parts for image, reason in part.failed.items()},
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
        extractor.name,
        extractor.encoder.weights_sha256,
        measured,
        failed={**data.failed, **{str(data.image_ids[n]): reason for n, reason in features.failed.items()}},
    )


def _of_size(data: LabelledImages, processor: StedFmImageProcessor, size: int, pipeline: str) -> LabelledImages:
    """Return images whose reader refuses those of another size than the pipeline generates."""

    def read(row: int) -> StedImage:
        image = data.reader(row)
        height, width = _size_of(image, processor)
        if (height, width) != (size, size):
            raise ValueError(
                f"is {height} x {width} pixels, and the pipeline {pipeline} generates {size} x {size}; make crops of "
                f"this size: stedfm data build --crop-size {size}"
            )
        return image

    return replace(data, reader=read, fingerprint=sha256_of(data.fingerprint, f"{size} px".encode()))


def _common_size(splits: Iterable[LabelledImages], processor: StedFmImageProcessor) -> int | None:
    """Return the height and width of images if a sample of them are squares of one size, in pixels; else None."""
    found = set()
    for data in splits:
        for number in np.unique(np.linspace(0, len(data) - 1, _SAMPLE).astype(int)):
            try:
                found.add(_size_of(data.stored(int(number)), processor))
            except (ValueError, OSError):
                continue  # reported with the features
    sizes = {size for shape in found for size in shape}
    return sizes.pop() if len(sizes) == 1 else None


def _size_of(image: StedImage, processor: StedFmImageProcessor) -> tuple[int, int]:
    """Return the height and width of an image as the encoder gets it, in pixels."""
    resampled = processor.target_pixel_size_nm is not None
    height, width = (processor.prepare(image) if resampled else image.array).shape[-2:]
    return height, width


def _brightness(image: np.ndarray) -> float:
    return float(image.mean())


def _spots(image: np.ndarray) -> float:
    """Return the number of bright spots per megapixel."""
    return float(morphology_features([image], pixel_size_um=PIXEL_SIZE_UM).objects[0]) / image.size * 1e6


MEASURES = {"brightness": _brightness, "density": _spots}
"""Function that measures an attribute of a scaled image (H, W), by name."""
