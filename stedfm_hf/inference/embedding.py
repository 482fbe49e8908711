"""Embedding of files, folders and datasets into a table."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.inference.loading import Encoder, has_fast_bfloat16, load_encoder
from stedfm_hf.inference.sources import Source, chunks, find_sources
from stedfm_hf.inference.tables import Parts, embedding_schema, read_table
from stedfm_hf.modeling.tiling_stedfm import POOLINGS, encode_images
from stedfm_hf.runs import Manifest, Progress, UserError

CHUNK = 64
"""Files between two steps of writing: what a kill can cost."""
AHEAD = 64, 128 * 2**20
"""How many files, and of how many bytes, are read ahead of the model."""
LONG = 60.0
"""Seconds still to come from which on a faster precision is worth a word."""


@dataclass(frozen=True)
class EmbedResult:
    """What `embed` made.

    Attributes:
        table: The rows, see `embed`.
        manifest: Settings, versions and the fate of every item.
    """

    table: pa.Table
    manifest: Manifest


def embed(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str | Path,
    output: str | os.PathLike[str] | None = None,
    pooling: str = "avg",
    precision: str = "float32",
    device: str = "auto",
    tile: int | str | None = "auto",
    batch_size: int = 32,
    workers: int | None = None,
    series: str | int | None = None,
    channel: str | int | None = None,
    normalization: str | None = None,
    intensity_range: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> EmbedResult:
    """Embed images into a table with one row per image and channel, or per patch.

    An image is one series of a file (a plane of a stack, an array of an `.npz`) or one row of a dataset. It is scaled
    once as a whole, runs whole up to the model's `image_size` and in tiles of that size above; its vector is the mean
    over its patches, every position counted once and padding not at all.

    Written in steps: a run that was stopped goes on where it was when the same call is made again, and one that is
    complete takes up what is new and tries again what had failed.

    Args:
        inputs: Image files, folders (searched recursively) and globs; folders or Hub ids of datasets.
        model: A model folder or Hub id.
        output: The `.parquet` or `.csv` file to write, with `<output>.manifest.json` beside it; None only returns
            the table.
        pooling: `"avg"` (mean of the patch tokens), `"token"` (class token) or `"patch"` (a row for every patch).
        precision: `"float32"`, `"bfloat16"`, `"float16"` or `"auto"`, see `load_encoder`.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"mps"`.
        tile: Side of a tile in pixels; `"auto"` is the model's `image_size`, None takes every image whole.
        batch_size: Tiles in one forward pass.
        workers: Threads that read and scale images; by default as many as there are cores, at most 8.
        series: Name or index of the series to take from every file; None takes all.
        channel: Name or index of the channel to take from every image; None takes all.
        normalization: Overrides that of the model's processor.
        intensity_range: Lower and upper intensity for `normalization="fixed"`.
        overwrite: Whether an existing output is begun anew.

    Returns:
        The table and the manifest. Columns: `path` (relative to the input it was found under), `series`, `channel`,
        `height`, `width` (pixels), `pixel_size_nm` ([y, x] or null), `embedding` (D float32), `model`,
        `weights_sha256`; with `"patch"` also `row`, `col` and `y_px`, `x_px`, the top left corner of the patch in
        pixels of the file. Files that failed have no row; `manifest.failures()` names them.

    Raises:
        UserError: For wrong arguments, nothing to embed, or an output begun with other settings.

    Example:
        >>> import tempfile
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> folder = Path(tempfile.mkdtemp())
        >>> StedFmModel(StedFmConfig(num_hidden_layers=1)).save_pretrained(folder / "model")
        >>> np.save(folder / "cell.npy", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
        >>> table = embed(folder / "cell.npy", model=folder / "model", device="cpu").table
        >>> table.num_rows, len(table["embedding"][0])
        (1, 384)
    """
    if output is None:
        with tempfile.TemporaryDirectory(prefix="stedfm-embed-") as folder:
            return embed(
                inputs,
                model=model,
                output=Path(folder, "embeddings.parquet"),
                pooling=pooling,
                precision=precision,
                device=device,
                tile=tile,
                batch_size=batch_size,
                workers=workers,
                series=series,
                channel=channel,
                normalization=normalization,
                intensity_range=intensity_range,
            )
    if pooling not in POOLINGS:
        raise UserError(f"pooling {pooling!r} is unknown; choose {', '.join(POOLINGS)}")
    if batch_size < 1:
        raise UserError(f"batch size {batch_size} is too small; the least is 1")
    sources, skipped = find_sources(inputs)
    encoder = load_encoder(model, device=device, precision=precision)
    _check_tile(encoder, tile)
    scaling = _scaling(encoder, normalization, intensity_range)
    channel = encoder.processor.channel if channel is None else channel
    manifest = Manifest(
        "embed",
        settings={
            "pooling": pooling,
            "precision": str(encoder.model.dtype).removeprefix("torch."),
            "tile": tile,
            "series": series,
            "channel": channel,
            **scaling,
        },
        options={"device": str(encoder.model.device), "batch_size": batch_size, "skipped_files": skipped},
        model=encoder.name,
        weights_sha256=encoder.weights_sha256,
    )
    schema = embedding_schema(encoder.model.config.hidden_size, patches=pooling == "patch")
    parts = Parts(Path(output), manifest, schema, overwrite=overwrite)
    left = [source for source in sources if source.path not in manifest.items]
    prepare = Preparation(encoder, series, channel, scaling)
    threads = workers or min(os.cpu_count() or 1, 8)
    with (
        Progress(len(sources), description="embed", done=len(sources) - len(left)) as progress,
        ThreadPoolExecutor(threads, thread_name_prefix="stedfm-read") as pool,
    ):
        ready = _read_ahead(pool, prepare, left)
        hint = _speed_hint(encoder)
        for chunk in chunks(left, CHUNK):
            table = _embed_chunk(
                encoder, islice(ready, len(chunk)), manifest, progress, schema, pooling, tile, batch_size
            )
            parts.add(table, [source.path for source in chunk])
            if hint and progress.rate and (len(sources) - progress.count) / progress.rate > LONG:
                progress.note(hint)
                hint = None
    parts.finish()
    return EmbedResult(read_table(parts.target, schema), manifest)


@dataclass(frozen=True)
class Prepared:
    """A source that was read: the images in it, each with what its rows will say of it; or the error."""

    path: str
    images: tuple[tuple[dict[str, Any], np.ndarray], ...]
    error: str | None = None


@dataclass(frozen=True)
class Preparation:
    """Reads a source and scales its images; runs in the reading threads."""

    encoder: Encoder
    series: str | int | None
    channel: str | int | None
    scaling: dict[str, Any]

    def __call__(self, source: Source) -> Prepared:
        """Read and scale, and turn whatever goes wrong into the error of this source alone."""
        try:
            return Prepared(source.path, tuple(self._images(source)))
        except (ValueError, OSError, MemoryError) as error:
            return Prepared(source.path, (), str(error) or type(error).__name__)

    def _images(self, source: Source) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        channels = self.encoder.model.config.num_channels
        for image in source.read(self.series, self.channel):
            scaled = self.encoder.processor.prepare(image, channel=None, **self.scaling)
            facts = {
                "path": source.path,
                "series": image.series,
                "height": image.array.shape[1],
                "width": image.array.shape[2],
                "pixel_size_nm": list(image.pixel_size_nm) if image.pixel_size_nm else None,
            }
            if channels == 1:
                for name, plane in zip(image.channel_names, scaled, strict=True):
                    yield facts | {"channel": name}, plane[None]
            elif len(scaled) == channels:
                yield facts | {"channel": "+".join(image.channel_names)}, scaled
            else:
                raise ValueError(f"has {len(scaled)} channels, and the model takes {channels}")


def _embed_chunk(
    encoder: Encoder,
    prepared: Iterable[Prepared],
    manifest: Manifest,
    progress: Progress,
    schema: pa.Schema,
    pooling: str,
    tile: int | str | None,
    batch_size: int,
) -> pa.Table:
    """Embed the images of some sources and record the fate of each source."""
    facts: list[dict[str, Any]] = []
    errors: dict[str, str | None] = {}

    def images() -> Iterator[np.ndarray]:
        for source in prepared:
            errors[source.path] = source.error
            for fact, pixels in source.images:
                facts.append(fact | {"size": pixels.shape[1:]})
                yield pixels
            progress.update()

    vectors = list(encode_images(encoder.model, images(), pooling=pooling, tile=tile, batch_size=batch_size))
    for fact, vector in zip(facts, vectors, strict=True):
        if not np.isfinite(vector).all():
            errors[fact["path"]] = "the vector is not finite; try --precision float32"
    for path, error in errors.items():
        if error is None:
            manifest.done(path)
        else:
            manifest.failed(path, error)
            # Readers name the file in their own way; it is named here by the path of the table.
            reason = (manifest.items[path].reason or "").rpartition(f"{Path(path).name}: ")[2]
            progress.note(f"stedfm: error: {path}: {reason}")
    kept = [(fact, vector) for fact, vector in zip(facts, vectors, strict=True) if errors[fact["path"]] is None]
    patch_size = encoder.model.config.patch_size
    rows = [_patch_rows(fact, vector, patch_size) if pooling == "patch" else [fact] for fact, vector in kept]
    dim = schema.field("embedding").type.list_size
    values = np.concatenate([np.empty((0, dim), np.float32), *(vector.reshape(-1, dim) for _, vector in kept)])
    columns: dict[str, Any] = {
        "embedding": pa.FixedSizeListArray.from_arrays(values.ravel(), dim),
        "model": [encoder.name] * len(values),
        "weights_sha256": [encoder.weights_sha256] * len(values),
    }
    flat = [row for group in rows for row in group]
    columns |= {name: [row[name] for row in flat] for name in schema.names if name not in columns}
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)


def _patch_rows(fact: dict[str, Any], patches: np.ndarray, patch_size: int) -> Iterator[dict[str, Any]]:
    """One row per patch; corners are in pixels of the file, which resampling may have changed."""
    y_scale, x_scale = (fact[side] / size for side, size in zip(("height", "width"), fact["size"], strict=True))
    for row, col in np.ndindex(patches.shape[:2]):
        yield fact | {"row": row, "col": col, "y_px": row * patch_size * y_scale, "x_px": col * patch_size * x_scale}


def _read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[Source], Prepared], sources: Iterable[Source]
) -> Iterator[Prepared]:
    """Read sources in order, some ahead of the one that is asked for."""
    waiting: deque[tuple[Future[Prepared], int]] = deque()
    most, room = AHEAD
    for source in sources:
        while waiting and (len(waiting) >= most or sum(size for _, size in waiting) + source.size > room):
            yield waiting.popleft()[0].result()
        waiting.append((pool.submit(read, source), source.size))
    while waiting:
        yield waiting.popleft()[0].result()


def _scaling(
    encoder: Encoder, normalization: str | None, intensity_range: tuple[float, float] | None
) -> dict[str, Any]:
    """How intensities become [0, 1]: as the processor says unless told otherwise."""
    processor = encoder.processor
    if normalization is None:
        normalization = processor.normalization if intensity_range is None else "fixed"
    scaling = {
        "normalization": normalization,
        "percentiles": processor.percentiles,
        "intensity_range": processor.intensity_range if intensity_range is None else list(intensity_range),
        "target_pixel_size_nm": processor.target_pixel_size_nm,
    }
    try:
        processor.prepare(np.zeros((1, 1)), pixel_size_nm=1, **scaling)
    except ValueError as error:
        raise UserError(str(error)) from error
    return scaling


def _check_tile(encoder: Encoder, tile: int | str | None) -> None:
    patch_size = encoder.model.config.patch_size
    if tile not in ("auto", None) and (not isinstance(tile, int) or tile <= 0 or tile % patch_size):
        raise UserError(f"tile {tile!r} is no tile size; choose auto, none or a multiple of {patch_size} pixels")


def _speed_hint(encoder: Encoder) -> str | None:
    if encoder.model.dtype == torch.float32 and has_fast_bfloat16(encoder.model.device):
        return "stedfm: this takes a while; --precision auto computes in bfloat16 here, two to three times as fast"
    return None
