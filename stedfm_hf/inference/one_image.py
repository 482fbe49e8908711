"""Apply models to one image in memory, with the functions that `embed`, `classify` and `segment` apply to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.preprocessing import StandardScaler

from stedfm_hf.images import StedImage
from stedfm_hf.inference.field_task import FieldTask
from stedfm_hf.inference.fields import fields_of
from stedfm_hf.inference.loading import Classifier, Encoder, Loaded
from stedfm_hf.inference.maps import MapWriter
from stedfm_hf.inference.predictions import predict, prediction_columns, prediction_schema, prediction_table
from stedfm_hf.inference.preparation import Fact, Preparation
from stedfm_hf.inference.segmenter import Segmenter
from stedfm_hf.inference.segmenting import checked_probabilities, checked_threshold, checked_tiles
from stedfm_hf.inference.stepwise import scaling_of, table_of
from stedfm_hf.inference.tables import embedding_schema
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import FileStamp

BATCH_SIZE = 32


@dataclass(frozen=True)
class MemorySource:
    """Source of one image in memory.

    Attributes:
        image: Image.
    """

    image: StedImage
    size: int = 0
    stamp: FileStamp | None = None

    @property
    def path(self) -> str:
        """Name of the file that the image is from."""
        return Path(self.image.source).name

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Return the image."""
        return [self.image]

    def source_id(self) -> str:
        """Return "", because the bytes of the file are unknown."""
        return ""


def prepare_image(
    loaded: Loaded, image: StedImage, scaling: Mapping[str, Any] | None = None
) -> list[tuple[Fact, np.ndarray]]:
    """Scale an image for a model as `embed` does.

    Args:
        loaded: Model.
        image: Image.
        scaling: Scaling of intensities (`stedfm_hf.inference.stepwise.scaling_of`); None uses that of the processor.

    Returns:
        Facts for the row of the table and pixels (C, H, W) of every input of the model: one for each channel of the
        image if the model has one channel.

    Raises:
        ValueError: If the image does not fit the model.
    """
    values = scaling_of(loaded, None, None) if scaling is None else dict(scaling)
    prepared = Preparation(loaded, None, None, values)(MemorySource(image))
    if prepared.error is not None:
        raise ValueError(prepared.error)
    return [(fact | {"size": pixels.shape[1:]}, pixels) for fact, pixels in prepared.images]


def embed_image(encoder: Encoder, image: StedImage) -> pa.Table:
    """Embed an image: the table that `embed` writes for its file.

    Args:
        encoder: Encoder.
        image: Image.

    Raises:
        ValueError: If the image does not fit the model, or the embedding is not finite.
    """
    prepared = prepare_image(encoder, image)
    vectors = list(encode_images(encoder.model, (pixels for _, pixels in prepared), batch_size=BATCH_SIZE))
    _check_finite(vectors)
    dim = encoder.model.config.hidden_size
    column = pa.FixedSizeListArray.from_arrays(np.concatenate(vectors), dim)
    schema = embedding_schema(dim, patches=False)
    return table_of([fact for fact, _ in prepared], schema, encoder, {"embedding": column})


@dataclass(frozen=True, eq=False)
class Patches:
    """Embeddings of the patches of an image.

    Attributes:
        embeddings: (rows, cols, D) float32: the embeddings of `embed` with the pooling `patch`.
        shape: Height and width of the image, in pixels of the file.
        size_px: Height and width of a patch, in pixels of the file.
    """

    embeddings: np.ndarray
    shape: tuple[int, int]
    size_px: tuple[float, float]

    def patch_at(self, y: int, x: int) -> tuple[int, int]:
        """Return the row and the column of the patch at a pixel of the file."""
        rows, cols, _ = self.embeddings.shape
        return min(int(y / self.size_px[0]), rows - 1), min(int(x / self.size_px[1]), cols - 1)

    def at_pixels(self, values: np.ndarray) -> np.ndarray:
        """Return values of patches (rows, cols) at every pixel of the file (H, W)."""
        return at_pixels(values, self.shape, self.size_px)


def at_pixels(values: np.ndarray, shape: tuple[int, int], size_px: tuple[float, float]) -> np.ndarray:
    """Return values of patches at every pixel of an image.

    Args:
        values: Values (rows, cols, ...).
        shape: Height and width of the image, in pixels of the file.
        size_px: Height and width of a patch, in pixels of the file.

    Returns:
        (H, W, ...).

    Example:
        >>> at_pixels(np.array([[1, 2]]), (2, 5), (3.0, 3.0)).tolist()
        [[1, 1, 1, 2, 2], [1, 1, 1, 2, 2]]
    """
    rows, cols = (
        np.minimum((np.arange(length) / size).astype(np.int64), count - 1)
        for length, size, count in zip(shape, size_px, values.shape[:2], strict=True)
    )
    return values[rows[:, None], cols]


def embed_patches(
    encoder: Encoder,
    image: StedImage,
    *,
    scaling: Mapping[str, Any] | None = None,
    tile_size: int | str | None = "auto",
    batch_size: int = BATCH_SIZE,
) -> Patches:
    """Embed the patches of an image with one channel.

    Args:
        encoder: Encoder.
        image: Image.
        scaling: As for `prepare_image`.
        tile_size: Size of a tile in pixels, `auto`, or None for the whole image.
        batch_size: Number of tiles in one forward pass.

    Raises:
        ValueError: If the image does not fit the model, has more than one input, or an embedding is not finite.
    """
    ((fact, pixels),) = prepare_image(encoder, image, scaling)
    (embeddings,) = encode_images(encoder.model, [pixels], pooling="patch", tile_size=tile_size, batch_size=batch_size)
    _check_finite([embeddings])
    shape, patch_size = (fact["height"], fact["width"]), encoder.model.config.patch_size
    height, width = (patch_size * length / size for length, size in zip(shape, fact["size"], strict=True))
    return Patches(embeddings, shape, (height, width))


def patch_similarity(patches: np.ndarray, row: int, col: int) -> np.ndarray:
    """Compute the cosine similarity of every patch of an image to one of them.

    Features are first standardised over the patches of the image, because raw embeddings of patches share a large
    mean.

    Args:
        patches: Embeddings (rows, cols, D).
        row: Row of the patch, in patches.
        col: Column of the patch, in patches.

    Returns:
        (rows, cols) float32 in [-1, 1].

    Example:
        >>> patches = np.array([[[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]])
        >>> patch_similarity(patches, 0, 0).round(3).tolist()
        [[1.0, 1.0, -1.0]]
    """
    unit = unit_patches(patches.reshape(-1, patches.shape[-1]))
    return (unit @ unit[row * patches.shape[1] + col]).reshape(patches.shape[:2]).clip(-1, 1).astype(np.float32)


def best_similarity(patches: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the cosine similarity of every patch of an image to its most similar patch of another image.

    Features are first standardised over the patches of both images.

    Args:
        patches: Embeddings (rows, cols, D) of the image.
        others: Embeddings (rows, cols, D) of the other image.

    Returns:
        (rows, cols) float32 in [-1, 1].
    """
    dim = patches.shape[-1]
    unit = unit_patches(np.concatenate([patches.reshape(-1, dim), others.reshape(-1, dim)])).astype(np.float32)
    count = patches.shape[0] * patches.shape[1]
    left, right = unit[:count], unit[count:].T
    step = max(1, 2**24 // right.shape[1])  # 64 MiB of similarities at once
    best = [(left[start : start + step] @ right).max(axis=1) for start in range(0, count, step)]
    return np.concatenate(best).reshape(patches.shape[:2]).clip(-1, 1)


def unit_patches(embeddings: np.ndarray) -> np.ndarray:
    """Standardise the features of patches, and divide each patch by its norm.

    Args:
        embeddings: Embeddings (n, D) of the patches of one image, or of all images that are compared.

    Returns:
        (n, D) float64, whose products are cosine similarities; zeros for an embedding that equals the mean.

    Example:
        >>> unit_patches(np.array([[0.0, 1.0], [2.0, 1.0]])).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    scaled = StandardScaler().fit_transform(embeddings.astype(np.float64))
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled / np.where(norms == 0, 1.0, norms)


def classify_image(classifier: Classifier, image: StedImage, map_folder: Path) -> pa.Table:
    """Classify an image: the table that `classify` writes for its file; a large image also gets its map.

    Args:
        classifier: Classifier.
        image: Image.
        map_folder: Folder of the maps; without images larger than the crops of the model it stays empty.

    Raises:
        ValueError: If the image does not fit the model, or a prediction is not finite.
    """
    prepared, columns = prepare_image(classifier, image), prediction_columns(classifier)
    config = classifier.model.config
    run = partial(predict, classifier, batch_size=BATCH_SIZE)
    values = list(run((pixels for _, pixels in prepared), tile_size="auto"))
    _check_finite(values)
    write_map = MapWriter(
        map_folder,
        partial(run, tile_size=None),
        list(columns.values()),
        config.image_size,
        config.image_size // 2,
        None if config.target_type == "regression" else (0.0, 1.0),
    )
    facts = [fact | write_map(fact, pixels) for fact, pixels in prepared]
    schema = prediction_schema(list(columns), labelled=config.target_type in ("single_label", "soft"), maps=True)
    return prediction_table(list(zip(facts, values, strict=True)), schema, classifier, columns)


def segment_image(
    segmenter: Segmenter,
    image: StedImage,
    folder: Path,
    *,
    threshold: float | None = None,
    min_area_px: int = 1,
) -> tuple[Fact, pa.Table]:
    """Segment an image with one field, and write the files that `segment` writes for its file.

    Args:
        segmenter: Segmenter.
        image: Image.
        folder: Folder of the files.
        threshold: As for `segment`.
        min_area_px: As for `segment`.

    Returns:
        Row of the table of fields with the names of the files, and table of objects.

    Raises:
        ValueError: If the image does not fit the model, or gives more than one field.
    """
    (field,) = fields_of(image, segmenter, scaling_of(segmenter, None, None))
    tile_size, tile_overlap = checked_tiles(segmenter, None, None)
    task = FieldTask(
        segmenter,
        folder,
        threshold=checked_threshold(segmenter, threshold),
        min_area_px=min_area_px,
        tile_size=tile_size,
        tile_overlap=tile_overlap,
        batch_size=8,
        probabilities=checked_probabilities(segmenter, "float32"),
        overlay=True,
    )
    return task(field, Path(image.source).name, 1)


def one_channel(image: StedImage, channel: int) -> StedImage:
    """Return an image with one of its channels.

    Args:
        image: Image.
        channel: Index of the channel.

    Example:
        >>> image = StedImage(np.zeros((2, 5, 7)), None, ("actin", "tubulin"), {}, "a.tif", "image")
        >>> one_channel(image, 1).channel_names
        ('tubulin',)
    """
    names = image.channel_names[channel : channel + 1]
    return replace(image, array=image.array[channel : channel + 1], channel_names=names)


def _check_finite(values: list[np.ndarray]) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise ValueError("the result is not finite; use the precision float32")
