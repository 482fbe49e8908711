"""Files of a data set: the shards of a split, and reading of their rows.

A data set is a local folder, an id on the Hub (`owner/name`), or its `hf://datasets/owner/name` path. The `datasets`
library finds the files. The number of rows of each row group comes from the index file, or, without one, from the
footers of the shards.
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
    """Shards of one split.

    Attributes:
        repo: Folder or id of the data set, as it was given.
        split: Name of the split.
        shards: Shards; `file` is the whole path or URL.
        labels: Names of the classes, empty if there are none.
        token: Token of the Hub; None uses the saved one.
        columns: Names of the columns.
    """

    repo: str
    split: str
    shards: tuple[Shard, ...]
    labels: tuple[str, ...]
    token: str | None = field(default=None, repr=False)
    columns: tuple[str, ...] = ()

    @property
    def plane_columns(self) -> tuple[str, ...]:
        """Columns of masks with planes and of regions that the split has."""
        return tuple(name for name in PLANE_COLUMNS if name in self.columns)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(shard.rows for shard in self.shards)


def find_split(repo: str | os.PathLike[str], split: str, *, token: str | None = None) -> SplitFiles:
    """Find the shards of a split.

    Args:
        repo: Local folder, Hub id or `hf://datasets/` path, the last two optionally with `@revision`.
        split: Name of the split.
        token: Token of the Hub for private data sets; None uses the saved one.

    Returns:
        The shards with their rows, the names of the classes and of the columns.

    Raises:
        UserError: There is no such data set or split, the split is empty, or a shard is damaged.
    """
    paths_of = _data_files(repo, token)
    if split not in paths_of:
        raise UserError(f"{repo}: has no split {split!r}; choose from {', '.join(paths_of)}")
    paths = paths_of[split]
    open_file = functools.partial(_open, token=token)
    groups = _groups_of_index(paths, split, open_file)
    if groups is None:  # no index.json: read the row groups from the footer of each file
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            groups = list(pool.map(lambda path: _groups_of_footer(path, open_file), paths))
    shards = tuple(Shard(path, each) for path, each in zip(paths, groups, strict=True))
    if not any(shard.rows for shard in shards):
        raise UserError(f"{repo}: split {split!r} is empty; choose another split")
    labels, columns = _labels_and_columns(paths[0], open_file)
    return SplitFiles(os.fspath(repo), split, shards, labels, token, columns)


def find_split_names(repo: str | os.PathLike[str], *, token: str | None = None) -> tuple[str, ...]:
    """Return the names of the splits of a data set; see `find_split` for arguments and errors."""
    return tuple(_data_files(repo, token))


def check_repository_name(repo: str | os.PathLike[str]) -> None:
    """Check that a name can be a data set, before the `datasets` library is imported.

    Args:
        repo: Local folder, Hub id or `hf://datasets/` path.

    Raises:
        UserError: The name is neither a folder with Parquet files nor a Hub id.
    """
    name = os.fspath(repo)
    folder = Path(name)
    if folder.is_dir():
        if not any(folder.rglob("*.parquet")):
            raise UserError(
                f"{name}: holds no Parquet file; give a data set, such as one that `stedfm data build` wrote"
            )
    elif folder.exists():
        raise UserError(f"{name}: is a file; give the folder of a data set")
    elif not _HUB_ID.fullmatch(name):
        raise UserError(f"{name}: no such folder; check the path (a Hub id is OWNER/NAME)")


def check_folder_name(repo: str | os.PathLike[str]) -> None:
    """Check that the path of a local data set has no characters that the `datasets` library takes for a glob.

    Args:
        repo: Local folder; other names are not checked.

    Raises:
        UserError: The path holds `*`, `?` or `[`.
    """
    folder = Path(repo)
    if folder.is_dir() and (signs := [sign for sign in "*?[" if sign in str(folder.absolute())]):
        raise UserError(f"{repo}: the path of a data set must not contain {' or '.join(signs)}; rename the folder")


def _data_files(repo: str | os.PathLike[str], token: str | None) -> dict[str, list[str]]:
    """Return the paths or URLs of the Parquet files of each split, as the `datasets` library finds them.

    The configuration `crops` is used, or, without one, the first that is not the preview.

    Raises:
        UserError: There is no such data set, the library cannot load it, or a file is not a Parquet file.
    """
    check_repository_name(repo)
    check_folder_name(repo)
    import datasets  # takes a second to import

    name, _, revision = os.fspath(repo).removeprefix(_HUB).rstrip("/").partition("@")
    if Path(repo).is_dir():
        name, revision = str(Path(repo).absolute()), ""
    try:
        configs = datasets.get_dataset_config_names(name, revision=revision or None, token=token)
        config = CONFIG if CONFIG in configs else next(each for each in configs if each != PREVIEW)
        builder = datasets.load_dataset_builder(name, config, revision=revision or None, token=token)
    except Exception as error:  # the library raises errors of many other libraries
        raise UserError(f"{repo}: cannot be loaded as a data set ({_one_line(error)})") from error
    files = {str(key): [str(path) for path in paths] for key, paths in (builder.config.data_files or {}).items()}
    if other := next((path for paths in files.values() for path in paths if not path.endswith(".parquet")), None):
        raise UserError(
            f"{repo}: not a data set of crops ({other.rpartition('/')[2]} is not a Parquet file); give a data set, "
            "such as one that `stedfm data build` wrote"
        )
    return files


def _open(path: str, *, token: str | None) -> IO[bytes]:
    """Open a local file, or one on the Hub, for which `huggingface_hub` retries failed reads."""
    if "://" not in path:
        return open(path, "rb")
    import fsspec

    options = {"token": token} if path.startswith("hf://") else {}
    system, remote_path = fsspec.core.url_to_fs(path, **options)
    # Without the cache of fsspec, which reads blocks of megabytes although a rank needs only a few row groups.
    return system.open(remote_path, "rb", cache_type="none")


OpenFile = Callable[[str], IO[bytes]]


def _groups_of_index(paths: Sequence[str], split: str, open_file: OpenFile) -> list[tuple[int, ...]] | None:
    """Read the number of rows of each row group of each shard from the index.

    None means that there is no readable index, or that it lists other files; the caller then reads the footers.
    """
    root = paths[0].rpartition("/data/")[0]
    if not root:
        return None
    try:
        with open_file(f"{root}/{INDEX_FILE}") as file:
            index = json.loads(file.read())
        groups = {each["file"]: tuple(int(rows) for rows in each["row_groups"]) for each in index["splits"][split]}
        return [groups.pop(path[len(root) + 1 :]) for path in paths] if len(groups) == len(paths) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _groups_of_footer(path: str, open_file: OpenFile) -> tuple[int, ...]:
    """Read the number of rows of each row group of a shard from its footer."""
    with _damage_errors(path), open_file(path) as file:
        metadata = pq.ParquetFile(file).metadata
        return tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))


def _labels_and_columns(path: str, open_file: OpenFile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the names of the classes (() without classes) and of the columns from the schema of a shard."""
    from datasets import ClassLabel, Features

    with _damage_errors(path), open_file(path) as file:
        features = Features.from_arrow_schema(pq.read_schema(file))
    label = features.get("label")
    return (tuple(label.names) if isinstance(label, ClassLabel) else ()), tuple(features)


class _damage_errors:
    """Context manager that converts errors of Parquet to a message with the path of the file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, pa.ArrowException | OSError | EOFError):
            raise UserError(
                f"{self.path}: cannot be read ({_one_line(error)}); the shard is missing, truncated or damaged: "
                "download it again, or build the data set again"
            ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class ShardReader:
    """Thread-safe reader of the row groups of a split.

    Args:
        files: Shards of the split.
        columns: Names of the columns to read.
        shards_in_use: Number of shards that are read alternately, whose footers are cached.

    Attributes:
        bytes_read: Number of compressed bytes of the columns that were read, without footers.
    """

    def __init__(self, files: SplitFiles, columns: Sequence[str], *, shards_in_use: int = 1) -> None:
        self.files, self.columns = files, list(columns)
        self.bytes_read = 0
        self._lock = threading.Lock()
        # Each footer is downloaded and parsed once; it takes half a megabyte of memory.
        self._footer = functools.lru_cache(maxsize=shards_in_use)(self._read_footer)

    def read(self, shard: int, groups: Sequence[int]) -> pa.Table:
        """Read row groups of a shard.

        Args:
            shard: Number of the shard.
            groups: Numbers of the row groups in the shard.

        Raises:
            UserError: The shard is damaged, does not match the index, or has no such column.
        """
        path = self.files.shards[shard].file
        metadata, size_of = self._footer(shard)
        with _damage_errors(path), self._opened(path) as file:
            table = pq.ParquetFile(file, metadata=metadata, pre_buffer="://" in path).read_row_groups(
                list(groups), columns=self.columns, use_threads=False
            )
        with self._lock:
            self.bytes_read += sum(size_of[group] for group in groups)
        return table

    def _opened(self, path: str) -> Any:
        # Not memory-mapped, because mapped pages count as memory of the process until the system reclaims them.
        return _open(path, token=self.files.token) if "://" in path else pa.OSFile(path)

    def _read_footer(self, shard: int) -> tuple[pq.FileMetaData, list[int]]:
        """Read the footer of a shard; return it with the compressed bytes of the columns in each row group.

        Raises:
            UserError: The shard is damaged, its row groups are not those of the index, or it lacks a column.
        """
        expected = self.files.shards[shard]
        with _damage_errors(expected.file), self._opened(expected.file) as file:
            metadata = pq.ParquetFile(file).metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        rows = tuple(group.num_rows for group in groups)
        if rows != expected.row_groups:
            raise UserError(
                f"{expected.file}: holds {sum(rows)} rows in {len(rows)} row groups, but {INDEX_FILE} lists "
                f"{expected.rows} in {len(expected.row_groups)}; download the file again, or build the data set again"
            )
        names = set(metadata.schema.to_arrow_schema().names)
        if missing := [name for name in self.columns if name not in names]:
            raise UserError(
                f"{expected.file}: has no column {', '.join(missing)} (its columns are {', '.join(sorted(names))}); "
                "give a data set of crops, such as one that `stedfm data build` wrote"
            )
        used = [k for k in range(metadata.num_columns) if _top_column(metadata, k) in self.columns]
        return metadata, [sum(group.column(k).total_compressed_size for k in used) for group in groups]


def _top_column(metadata: pq.FileMetaData, column: int) -> str:
    """Return the column of a table that a Parquet column belongs to; a list is stored as `name.list.element`."""
    return str(metadata.schema.column(column).path).split(".")[0]
