"""Embedding of files, folders and datasets into a table."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.data.sources import find_sources
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.inference.stepwise import (
    Fact,
    Preparation,
    check_batch_size,
    check_tile,
    chosen_scaling,
    table_of,
    work_through,
)
from stedfm_hf.inference.tables import Parts, embedding_schema, read_table
from stedfm_hf.modeling.tiling_stedfm import POOLINGS, encode_images
from stedfm_hf.runs import Manifest, UserError


@dataclass(frozen=True)
class EmbedResult:
    """What `embed` made.

    Attributes:
        table: The rows, see `embed`.
        manifest: Settings, versions and the status of every item.
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
    check_batch_size(batch_size)
    sources, skipped = find_sources(inputs)
    encoder = load_encoder(model, device=device, precision=precision)
    check_tile(encoder, tile)
    scaling = chosen_scaling(encoder, normalization, intensity_range)
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
    compute = partial(encode_images, encoder.model, pooling=pooling, tile=tile, batch_size=batch_size)
    work_through(
        parts,
        sources,
        Preparation(encoder, series, channel, scaling),
        compute,
        lambda results: _embedding_table(encoder, schema, pooling, results),
        workers=workers,
    )
    return EmbedResult(read_table(parts.target, schema), manifest)


def _embedding_table(
    encoder: Encoder, schema: pa.Schema, pooling: str, results: list[tuple[Fact, np.ndarray]]
) -> pa.Table:
    patch_size = encoder.model.config.patch_size
    rows = [_patch_rows(fact, vector, patch_size) if pooling == "patch" else [fact] for fact, vector in results]
    dim = schema.field("embedding").type.list_size
    values = np.concatenate([np.empty((0, dim), np.float32), *(vector.reshape(-1, dim) for _, vector in results)])
    vectors = pa.FixedSizeListArray.from_arrays(values.ravel(), dim)
    return table_of([row for group in rows for row in group], schema, encoder, {"embedding": vectors})


def _patch_rows(fact: Fact, patches: np.ndarray, patch_size: int) -> Iterator[Fact]:
    """One row per patch; corners are in pixels of the file, which resampling may have changed."""
    y_scale, x_scale = (fact[side] / size for side, size in zip(("height", "width"), fact["size"], strict=True))
    for row, col in np.ndindex(patches.shape[:2]):
        yield fact | {"row": row, "col": col, "y_px": row * patch_size * y_scale, "x_px": col * patch_size * x_scale}
