"""`stedfm index`: build an index, add items to it and remove items from it."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from stedfm_hf.data.sources import Source, find_sources, is_dataset
from stedfm_hf.discovery.settings import STATE, IndexSettings
from stedfm_hf.inference.settings import EmbedSettings
from stedfm_hf.runs import Manifest, UserError, counted, manifest_path
from stedfm_hf.runs.copies import working_copy
from stedfm_hf.runs.dask_cluster import LOCAL, open_cluster
from stedfm_hf.runs.executors import Workers
from stedfm_hf.runs.output import Output, check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.storage import as_list, as_path, is_remote
from stedfm_hf.weights.models import find_model

if TYPE_CHECKING:
    from stedfm_hf.discovery.index.layout import State
    from stedfm_hf.discovery.index.segments import SegmentParts
    from stedfm_hf.discovery.index.table_input import EmbeddingTable
    from stedfm_hf.inference.loading import Encoder

COMMAND = "index"


@dataclass(frozen=True)
class IndexResult(OutputResult):
    """Result of `stedfm index`.

    Attributes:
        items: Number of images and channels in the index.
        embeddings: Number of embeddings.
        search: Kind of search and its reason.
        removed: Number of files that were removed by `--remove`.
    """

    items: int
    embeddings: int
    search: str
    removed: int = 0

    def summary(self) -> str:
        """Return the size of the index and the kind of search."""
        failed = self.manifest.counts()["failed"]
        lines = [
            f"{self.output}: {counted(self.items, 'image')}, {counted(self.embeddings, 'embedding')}"
            + (f", {failed} failed" if failed else "")
            + (f"; {counted(self.removed, 'file')} removed" if self.removed else "")
        ]
        return "\n".join([*lines, f"search: {self.search}"])

    def to_json(self) -> dict[str, Any]:
        """Return counts and the kind of search."""
        more = {"images": self.items, "embeddings": self.embeddings, "search": self.search, "removed": self.removed}
        return super().to_json() | more


@takes_settings(IndexSettings)
def index(settings: IndexSettings) -> IndexResult:
    """Index images or their patches for `search`.

    Images are embedded as by `embed`, with which the index shares the rules for interrupted runs, changed and failed
    files. The index is memory-mapped, and adding replaces its state in one step: until then, and after a kill or on a
    full disk, it is the previous one.

    Returns:
        Folder, manifest, and size of the index.

    Raises:
        UserError: For wrong arguments, no input images, or embeddings of another model or other settings than those in
            the index.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> folder = Path(tempfile.mkdtemp())
        >>> StedFmModel(StedFmConfig(num_hidden_layers=1)).save_pretrained(folder / "model")
        >>> np.save(folder / "cell.npy", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
        >>> result = index(folder / "cell.npy", output=folder / "index", model=folder / "model", device="cpu")
        >>> result.items, result.search
        (1, 'exact (1 embedding)')
    """
    folder = as_path(settings.output)
    check_output(folder, COMMAND, is_folder=True, overwrite=settings.overwrite)
    if is_remote(folder) and settings.cluster is not None and not LOCAL.fullmatch(settings.cluster):
        raise UserError(
            f"output {folder}: an index in a store is made in a folder of this machine, which a cluster does not see; "
            "leave out --cluster, or write the index to a shared folder"
        )
    # An index is memory-mapped, so that one in an object store is changed as a copy, which then replaces it.
    with working_copy(folder, last=[STATE, "manifest.json"]) as target:
        result = _index(replace(settings, output=target), target)
    return replace(result, output=folder)


def _index(settings: IndexSettings, target: Path) -> IndexResult:
    """Add to an index on this machine, or remove items from it."""
    inputs = _inputs(settings)
    if not inputs:
        return _remove(target, settings)
    if tables := [
        each for each in inputs if as_path(each).suffix.lower() in (".parquet", ".csv") and as_path(each).is_file()
    ]:
        if len(inputs) > 1:
            raise UserError(f"{tables[0]}: a table cannot be combined with other inputs; index one after the other")
        return _index_table(target, settings, as_path(tables[0]))
    return _index_images(settings)


def _inputs(settings: IndexSettings) -> list[Any]:
    return as_list(settings.inputs)


def _index_images(settings: IndexSettings) -> IndexResult:
    """Load the model, embed images and add them to an index."""
    found = find_sources(_inputs(settings))
    source = find_model(settings.model)

    with open_cluster(settings.cluster) as cluster:
        # Errors up to here are reported at once: this module imports torch, which takes seconds.
        from stedfm_hf.inference.loading import load_encoder

        encoder = load_encoder(source, device=settings.device, precision=settings.precision, backend=settings.backend)
        return add_images(settings, found, encoder, cluster)


def add_images(
    settings: IndexSettings,
    found: tuple[list[Source], dict[str, int]],
    encoder: Encoder,
    cluster: Workers | None = None,
) -> IndexResult:
    """Embed images with a loaded encoder and add them to an index.

    Args:
        settings: Settings of `index`; those of the model are not used.
        found: Image sources and skipped files of the inputs (`find_sources`).
        encoder: Encoder.
        cluster: Open cluster that embeds them; None uses the devices of this machine.

    Raises:
        UserError: If the index holds embeddings of another model or other settings, or the disk is full.
    """
    from stedfm_hf.discovery.index.segments import ItemTable, relative_to
    from stedfm_hf.inference.embedding import embed_sources, embedding_scaling

    target, inputs = Path(settings.output), _inputs(settings)
    sources = [source for source in found[0] if not _matches(source.path, settings.remove)]
    by_embed = _embed_settings(settings)
    scaling = embedding_scaling(encoder, by_embed)
    datasets = [
        relative_to(target, as_path(each)) if as_path(each).is_dir() else str(each)
        for each in inputs
        if is_dataset(each)
    ]
    config = encoder.model.config
    with _open(
        target,
        settings,
        {"pooling": by_embed.pooling, **scaling, "precision": encoder.precision},
        options={"device": str(encoder.model.device), "skipped_files": found[1]},
        model=encoder.name,
        weights_sha256=encoder.weights_sha256,
    ) as output:
        state, removed = _begin(output, by_embed.pooling, config.hidden_size, settings)
        parts = _parts(output, state, datasets)
        table = ItemTable(target, by_embed.pooling, config.patch_size, settings.source_pattern)
        embed_sources(parts, sources, encoder, by_embed, scaling, table, cluster)
        state = _commit(target, parts.state, parts.next_state, settings.search)
    return _result(output.path, output.manifest, state, removed)


def _index_table(target: Path, settings: IndexSettings, path: Path) -> IndexResult:
    """Add the embeddings of a table to an index."""
    from stedfm_hf.discovery.index.table_input import add_table, open_table_input

    table: EmbeddingTable = open_table_input(path)
    if settings.patches and table.pooling != "patch":
        raise UserError(f"{path}: has one embedding per image; remove --patches, or embed with --pooling patch")
    sources = {} if settings.images is None else {each.path: each for each in find_sources(settings.images)[0]}
    datasets = [] if settings.images is None or not is_dataset(settings.images) else [str(settings.images)]
    left_out = {path for path in table.manifest.items if _matches(path, settings.remove)}
    with _open(
        target,
        settings,
        table.manifest.settings,
        options={"model": table.manifest.options.get("model"), "table": path.name},
        model=table.manifest.model,
        weights_sha256=table.manifest.weights_sha256,
    ) as output:
        state, removed = _begin(output, table.pooling, table.dim, settings)
        parts = _parts(output, state, datasets)
        add_table(parts, table, sources, settings.source_pattern, left_out)
        state = _commit(target, parts.state, parts.next_state, settings.search)
    return _result(output.path, output.manifest, state, removed)


def _remove(target: Path, settings: IndexSettings) -> IndexResult:
    """Remove items from an index."""
    from stedfm_hf.discovery.index.layout import read_state
    from stedfm_hf.discovery.index.segments import live_items, with_removed

    state = read_state(target)
    with _locked(target):
        manifest = Manifest.load(manifest_path(target, folder=True))
        paths = [path for path in live_items(target, state) if _matches(path, settings.remove)]
        if not paths:
            raise UserError(f"{target}: no item matches {', '.join(settings.remove)}; nothing was removed")
        removed = with_removed(target, state, paths)
        state = _commit(target, state, state.next(removed=removed), str(manifest.options.get("search", "auto")))
        for path in paths:
            manifest.items.pop(path, None)
        manifest.save(manifest_path(target, folder=True))
    return _result(target, manifest, state, len(paths))


def _begin(output: Output, pooling: str, dim: int, settings: IndexSettings) -> tuple[State, int]:
    """Return the state of an output, without the items to remove, and their number."""
    from stedfm_hf.discovery.index import layout
    from stedfm_hf.discovery.index.segments import live_items, with_removed

    if not layout.exists(output.path):
        return layout.State(pooling, dim), 0
    state = layout.read_state(output.path)
    paths = [path for path in live_items(output.path, state) if _matches(path, settings.remove)]
    if paths:
        removed = with_removed(output.path, state, paths)
        state = _commit(output.path, state, state.next(removed=removed), settings.search)
    return state, len(paths)


def _parts(output: Output, state: State, datasets: list[str]) -> SegmentParts:
    from stedfm_hf.discovery.index.segments import SegmentParts

    return SegmentParts(output, state, datasets)


def _commit(folder: Path, state: State, following: State, search: str) -> State:
    """Make the next state of an index the current one, if it differs."""
    from stedfm_hf.discovery.index.derived import derive
    from stedfm_hf.discovery.index.layout import exists, write_state
    from stedfm_hf.discovery.index.segments import without_empty_segments

    if following is state and exists(folder) and search in ("auto", state.search):
        return state
    if following is state:
        following = state.next()
    following = derive(folder, without_empty_segments(folder, following), search)
    write_state(folder, following)
    return following


def _result(folder: Path, manifest: Manifest, state: State, removed: int) -> IndexResult:
    from stedfm_hf.discovery.index.derived import removed_rows
    from stedfm_hf.discovery.index.layout import open_segment

    gone = removed_rows(folder, state)
    items = sum(open_segment(folder, name).items().num_rows for name in state.segments)
    items -= sum(map(len, state.removed.values()))
    search = f"{state.search} ({state.reason})"
    return IndexResult(folder, manifest, items, len(gone) - int(gone.sum()), search, removed)


@contextmanager
def _open(target: Path, settings: IndexSettings, resolved: dict[str, Any], **facts: Any) -> Iterator[Output]:
    """Open the folder of an index for one command at a time.

    Raises:
        UserError: If the index holds embeddings of another model or other settings, or the disk is full.
    """
    from stedfm_hf.discovery.index.layout import ADDING, DERIVED, SEGMENTS

    with (
        _locked(target),
        open_output(
            target,
            COMMAND,
            settings,
            results=[STATE],
            temporary=[ADDING, SEGMENTS, DERIVED],
            resolved=resolved,
            overwrite=settings.overwrite,
            **facts,
        ) as output,
    ):
        yield output


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Lock an index for one command, and explain a disk that cannot be written.

    Raises:
        UserError: If another command holds the lock, or the disk is full.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"{target}: another command is changing the index; wait until it has ended") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise UserError(
            f"{target}: cannot be written ({error.strerror or error}); the index is unchanged. Free some space and "
            "run the same command again to resume"
        ) from error


def _embed_settings(settings: IndexSettings) -> EmbedSettings:
    """Return the settings with which `embed` makes the embeddings of an index."""
    return EmbedSettings(
        inputs=(),
        model=settings.model,
        pooling="patch" if settings.patches else "avg",
        precision=settings.precision,
        device=settings.device,
        backend=settings.backend,
        tile_size=settings.tile_size,
        batch_size=settings.batch_size,
        workers=settings.workers,
        series=settings.series,
        channel=settings.channel,
        normalization=settings.normalization,
        intensity_range=settings.intensity_range,
    )


def _matches(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(path, each) for each in globs)
