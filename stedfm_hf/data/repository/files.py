"""The files of a repository: which shards a split has, and reading rows out of them (ours, over `datasets`).

A repository is a local folder, the id of one on the Hub (`owner/name`), or its `hf://datasets/owner/name` path. The
`datasets` library finds its files; the index that `build` writes tells how many rows each row group has, so that
nothing need be opened to know the order of an epoch. Where there is no index the footers are read.
"""

from __future__ import annotations

import functools
import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.repository.layout import CONFIG, INDEX_FILE, PREVIEW
from stedfm_hf.data.repository.planes import PLANE_COLUMNS
from stedfm_hf.data.repository.shards import Shard
from stedfm_hf.runs.errors import UserError

_HUB = "hf://datasets/"
_HUB_ID = re.compile(rf"({_HUB})?[\w-][\w.-]*/[\w.-]+/?(@.+)?")
_FOOTERS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class SplitFiles:
    """The shards of one split, and how to read them.

    Args:
        repo: the repository as it was named.
        split: name of the split.
        shards: rows of their row groups; `file` is the whole path or address.
        labels: names of the classes, empty where there are none.
        token: of the Hub, or None for that of the login.
        columns: names of the columns.
    """

    repo: str
    split: str
    shards: tuple[Shard, ...]
    labels: tuple[str, ...]
    token: str | None = field(default=None, repr=False)
    columns: tuple[str, ...] = ()

    @property
    def plane_columns(self) -> tuple[str, ...]:
        """Columns of masks with planes and of regions, where the split has them."""
        return tuple(name for name in PLANE_COLUMNS if name in self.columns)

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return sum(shard.rows for shard in self.shards)


def find_split(repo: str | os.PathLike[str], split: str, *, token: str | None = None) -> SplitFiles:
    """Finds the shards of a split.

    Args:
        repo: a local folder, a Hub id or an `hf://datasets/` path; `@revision` may follow the last two.
        split: name of the split.
        token: of the Hub, for private repositories; None takes that of the login.

    Raises:
        UserError: there is no such repository or split, or a shard is damaged.
    """
    files = _data_files(repo, token)
    if split not in files:
        raise UserError(f"{repo}: has no split {split!r}; there are {', '.join(files)}")
    paths = files[split]
    open_file = functools.partial(_open, token=token)
    groups = _groups_of_index(paths, split, open_file)
    if groups is None:
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            groups = list(pool.map(lambda path: _groups_of_footer(path, open_file), paths))
    shards = tuple(Shard(path, each) for path, each in zip(paths, groups, strict=True))
    if not any(shard.rows for shard in shards):
        raise UserError(f"{repo}: split {split!r} holds no crop")
    labels, columns = _labels_and_columns(paths[0], open_file)
    return SplitFiles(os.fspath(repo), split, shards, labels, token, columns)


def find_split_names(repo: str | os.PathLike[str], *, token: str | None = None) -> tuple[str, ...]:
    """Names of the splits of a repository; arguments and errors as of :func:`find_split`."""
    return tuple(_data_files(repo, token))


def check_repository_name(repo: str | os.PathLike[str]) -> None:
    """Refuse what cannot be a data set, before the `datasets` library is imported.

    Raises:
        UserError: It is neither a folder with Parquet files nor an id on the Hub.
    """
    name = os.fspath(repo)
    folder = Path(name)
    if folder.is_dir():
        if not any(folder.rglob("*.parquet")):
            raise UserError(f"{name}: holds no Parquet file; name a data set that `stedfm data build` wrote")
    elif folder.exists() or not _HUB_ID.fullmatch(name):
        raise UserError(f"{name}: no such folder (the id of a data set on the Hub is OWNER/NAME)")


def _data_files(repo: str | os.PathLike[str], token: str | None) -> dict[str, list[str]]:
    """The files of every split, as the `datasets` library finds them."""
    check_repository_name(repo)
    import datasets  # takes a second to import

    name, _, revision = os.fspath(repo).removeprefix(_HUB).rstrip("/").partition("@")
    if Path(repo).is_dir():
        name, revision = str(Path(repo).absolute()), ""
    try:
        configs = datasets.get_dataset_config_names(name, revision=revision or None, token=token)
        config = CONFIG if CONFIG in configs else next(each for each in configs if each != PREVIEW)
        builder = datasets.load_dataset_builder(name, config, revision=revision or None, token=token)
    except Exception as error:  # the library lets the errors of many others through
        raise UserError(f"{repo}: cannot be loaded as a data set ({_one_line(error)})") from error
    files = {str(key): [str(path) for path in paths] for key, paths in (builder.config.data_files or {}).items()}
    if other := next((path for paths in files.values() for path in paths if not path.endswith(".parquet")), None):
        raise UserError(
            f"{repo}: is no data set of crops ({other.rpartition('/')[2]} is no Parquet file); name a repository that "
            "`stedfm data build` wrote"
        )
    return files


def _open(path: str, *, token: str | None) -> IO[bytes]:
    """A local file, or one on the Hub, whose reads `huggingface_hub` tries again when the connection breaks."""
    if "://" not in path:
        return open(path, "rb")
    import fsspec

    options = {"token": token} if path.startswith("hf://") else {}
    system, place = fsspec.core.url_to_fs(path, **options)
    # No cache of fsspec's own: it fetches whole blocks of megabytes where a rank needs a few row groups.
    return system.open(place, "rb", cache_type="none")


OpenFile = Callable[[str], IO[bytes]]


def _groups_of_index(paths: Sequence[str], split: str, open_file: OpenFile) -> list[tuple[int, ...]] | None:
    """Rows of the row groups as the index has them; None where it is not there or is of other files."""
    root = paths[0].rpartition("/data/")[0]
    if not root:
        return None
    try:
        with open_file(f"{root}/{INDEX_FILE}") as file:
            index = json.loads(file.read())
        known = {each["file"]: tuple(int(rows) for rows in each["row_groups"]) for each in index["splits"][split]}
        return [known.pop(path[len(root) + 1 :]) for path in paths] if len(known) == len(paths) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _groups_of_footer(path: str, open_file: OpenFile) -> tuple[int, ...]:
    with _named(path), open_file(path) as file:
        metadata = pq.ParquetFile(file).metadata
        return tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))


def _labels_and_columns(path: str, open_file: OpenFile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from datasets import ClassLabel, Features

    with _named(path), open_file(path) as file:
        features = Features.from_arrow_schema(pq.read_schema(file))
    label = features.get("label")
    return (tuple(label.names) if isinstance(label, ClassLabel) else ()), tuple(features)


class _named:
    """Turns what Parquet raises on a damaged file into one line that names it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, pa.ArrowException | OSError | EOFError):
            raise UserError(
                f"{self.path}: cannot be read ({_one_line(error)}); the shard is missing, truncated or damaged: "
                "get it again, or build the data set again"
            ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class ShardReader:
    """Reads row groups of the shards of a split; safe to use from several threads.

    Args:
        files: the split.
        columns: names of the columns to read.
        shards_in_use: shards that are read at a time: their footers are kept.

    Attributes:
        bytes_read: compressed bytes of the column chunks read so far, footers not counted.
    """

    def __init__(self, files: SplitFiles, columns: Sequence[str], *, shards_in_use: int = 1) -> None:
        self.files, self.columns = files, list(columns)
        self.bytes_read = 0
        self._lock = threading.Lock()
        # Parsed once, and fetched once where they come over the network; a footer takes half a megabyte.
        self._footer = functools.lru_cache(maxsize=shards_in_use)(self._read_footer)

    def read(self, shard: int, groups: Sequence[int]) -> pa.Table:
        """Reads row groups of a shard.

        Raises:
            UserError: the shard is damaged, is not what the index says, or lacks a column.
        """
        path = self.files.shards[shard].file
        metadata, size_of = self._footer(shard)
        with _named(path), self._opened(path) as file:
            table = pq.ParquetFile(file, metadata=metadata, pre_buffer="://" in path).read_row_groups(
                list(groups), columns=self.columns, use_threads=False
            )
        with self._lock:
            self.bytes_read += sum(size_of[group] for group in groups)
        return table

    def _opened(self, path: str) -> Any:
        # Not mapped into memory: pages of a map count as memory of the process until the system wants them back.
        return _open(path, token=self.files.token) if "://" in path else pa.OSFile(path)

    def _read_footer(self, shard: int) -> tuple[pq.FileMetaData, list[int]]:
        wanted = self.files.shards[shard]
        with _named(wanted.file), self._opened(wanted.file) as file:
            metadata = pq.ParquetFile(file).metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        rows = tuple(group.num_rows for group in groups)
        if rows != wanted.row_groups:
            raise UserError(
                f"{wanted.file}: holds {sum(rows)} rows in {len(rows)} row groups where {INDEX_FILE} says "
                f"{wanted.rows} in {len(wanted.row_groups)}; get the file again, or build the data set again"
            )
        names = set(metadata.schema.to_arrow_schema().names)
        if missing := [name for name in self.columns if name not in names]:
            raise UserError(
                f"{wanted.file}: has no column {', '.join(missing)} (there are {', '.join(sorted(names))}); it is no "
                "shard of crops as `stedfm data build` writes them"
            )
        used = [k for k in range(metadata.num_columns) if _top(metadata, k) in self.columns]
        return metadata, [sum(group.column(k).total_compressed_size for k in used) for group in groups]


def _top(metadata: pq.FileMetaData, column: int) -> str:
    return str(metadata.schema.column(column).path).split(".")[0]
