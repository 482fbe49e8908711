"""`stedfm embed`: a table of embeddings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stedfm_hf.data.sources import Source, find_sources
from stedfm_hf.inference.devices import devices_of
from stedfm_hf.inference.settings import EmbedSettings
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.executors import Workers
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.storage import as_path
from stedfm_hf.runs.workers import open_workers
from stedfm_hf.weights.models import ModelSource, find_model

if TYPE_CHECKING:
    import pyarrow as pa

    from stedfm_hf.inference.loading import Encoder
    from stedfm_hf.inference.preparation import Fact
    from stedfm_hf.inference.tables import Parts, TableResult


@takes_settings(EmbedSettings)
def embed(settings: EmbedSettings) -> TableResult:
    """Embed images into a table with one row per image and channel, or per patch.

    An image is one series of a file (a plane of a stack, an array of an `.npz`) or one row of a data set. It is scaled
    once as a whole. Images larger than the model's `image_size` are processed in tiles of that size. The embedding is
    the mean over the patches; every position counts once, and padding does not count.

    The table is written in steps. The same call resumes an interrupted run, and adds new and failed files to a
    finished table.

    Returns:
        Table and manifest. Columns: `path` (relative to the input), `series`, `channel`, `height`, `width` (pixels),
        `pixel_size_nm` ([y, x] or null), `embedding` (D float32), `model`, `weights_sha256`; with pooling `patch` also
        `row`, `col`, and `y_px`, `x_px`, the top left corner of the patch in pixels of the file. Failed files have no
        row and are listed by `manifest.failures()`.

    Raises:
        UserError: For wrong arguments, no input images, or an output made with other settings.

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
    if settings.output is None:
        with tempfile.TemporaryDirectory(prefix="stedfm-embed-") as folder:
            return _embed(replace(settings, output=Path(folder, "embeddings.parquet")))
    return _embed(settings)


def _embed(settings: EmbedSettings) -> TableResult:
    """Check the settings, open the cluster, and write the table of embeddings to `settings.output`."""
    target = as_path(str(settings.output))
    sources, skipped = find_sources(settings.inputs)
    check_output(target, "embed", is_folder=False, overwrite=settings.overwrite)
    source = find_model(settings.model)
    with open_cluster(settings.cluster) as cluster:
        return _write_table(settings, target, sources, skipped, source, cluster)


def _write_table(
    settings: EmbedSettings,
    target: Path,
    sources: Sequence[Source],
    skipped: Mapping[str, int],
    source: ModelSource,
    cluster: Workers | None,
) -> TableResult:
    """Load the model, embed the sources, and write the table."""
    # Errors up to here are reported at once: these modules import torch, which takes seconds.
    from stedfm_hf.inference.loading import load_encoder
    from stedfm_hf.inference.stepwise import open_table
    from stedfm_hf.inference.tables import TableParts, TableResult, embedding_schema, read_table

    encoder = load_encoder(source, device=settings.device, precision=settings.precision, backend=settings.backend)
    scaling = embedding_scaling(encoder, settings)
    patches = settings.pooling == "patch"
    schema = embedding_schema(encoder.model.config.hidden_size, patches=patches)
    with open_table(target, "embed", settings, encoder, scaling, skipped) as output:
        embed_sources(
            TableParts(output, schema),
            sources,
            encoder,
            settings,
            scaling,
            partial(_embedding_table, encoder, schema, patches),
            cluster,
        )
    return TableResult(target, output.manifest, read_table(target, schema))


def embedding_scaling(encoder: Encoder, settings: EmbedSettings) -> dict[str, Any]:
    """Return the settings that are known only with the encoder: the scaling of intensities, and the channel.

    Args:
        encoder: Encoder.
        settings: Settings; wrong combinations are refused.

    Raises:
        UserError: If the tile size or the scaling does not fit the model.
    """
    from stedfm_hf.inference.stepwise import check_tile_size, scaling_of

    check_tile_size(encoder, settings.tile_size)
    channel = encoder.processor.channel if settings.channel is None else settings.channel
    return scaling_of(encoder, settings.normalization, settings.intensity_range) | {"channel": channel}


def embed_sources(
    parts: Parts,
    sources: Sequence[Source],
    encoder: Encoder,
    settings: EmbedSettings,
    scaling: Mapping[str, Any],
    tabulate: Callable[[list[tuple[Fact, np.ndarray]]], pa.Table],
    cluster: Workers | None = None,
) -> None:
    """Embed the sources that are not done yet, in steps that survive an interrupt.

    Args:
        parts: Store of the rows.
        sources: All sources.
        encoder: Encoder.
        settings: Settings of the embedding.
        scaling: Result of `embedding_scaling`.
        tabulate: Function that makes the rows of images from their facts and embeddings: (D,), or (rows, cols, D) with
            the pooling `patch`. Another process must be able to unpickle it.
        cluster: Open cluster that embeds them; None uses the devices of this machine.
    """
    from stedfm_hf.inference.preparation import Preparation
    from stedfm_hf.inference.source_batches import SourceBatch
    from stedfm_hf.inference.stepwise import process_sources

    options = dict(scaling)
    channel = options.pop("channel")
    compute = partial(
        _encode,
        encoder,
        pooling=settings.pooling,
        tile_size=settings.tile_size,
        batch_size=settings.batch_size,
    )
    prepare = Preparation(encoder, settings.series, channel, options)
    with open_workers(cluster, devices=devices_of(settings.device, settings.backend)) as workers:
        process_sources(
            parts, sources, SourceBatch(parts.store, prepare, compute, tabulate, settings.workers), workers=workers
        )


def _encode(encoder: Encoder, images: Iterable[np.ndarray], **options: Any) -> Iterator[np.ndarray]:
    """Embed images. The encoder is an argument and not its network, which cannot travel to another process."""
    from stedfm_hf.modeling.tiling_stedfm import encode_images

    return encode_images(encoder.model, images, **options)


def _embedding_table(
    encoder: Encoder, schema: pa.Schema, patches: bool, results: list[tuple[Fact, np.ndarray]]
) -> pa.Table:
    """Return the rows of some images with their embeddings (D,), or a row per patch of arrays (rows, cols, D)."""
    import pyarrow as pa

    from stedfm_hf.inference.stepwise import table_of

    patch_size = encoder.model.config.patch_size
    rows = [_patch_rows(fact, vector, patch_size) if patches else [fact] for fact, vector in results]
    dim = schema.field("embedding").type.list_size
    values = np.concatenate([np.empty((0, dim), np.float32), *(vector.reshape(-1, dim) for _, vector in results)])
    embeddings = pa.FixedSizeListArray.from_arrays(values.ravel(), dim)
    return table_of([row for group in rows for row in group], schema, encoder, {"embedding": embeddings})


def _patch_rows(fact: Fact, patches: np.ndarray, patch_size: int) -> Iterator[Fact]:
    """Return one row per patch, with its corner in pixels of the file (before resampling)."""
    y_scale, x_scale = (fact[side] / size for side, size in zip(("height", "width"), fact["size"], strict=True))
    for row, col in np.ndindex(patches.shape[:2]):
        yield fact | {"row": row, "col": col, "y_px": row * patch_size * y_scale, "x_px": col * patch_size * x_scale}
