"""Files of a data set: the shards of a split.

A data set is a local folder, an id on the Hub (`owner/name`), its `hf://datasets/owner/name` path, or the URL of a
folder in another file system. The index file lists the shards and the number of rows of each row group. Without an
index, or if it lists other files, the `datasets` library finds the files, and the footers of the shards have the
numbers of rows.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.repository.index_file import HUB, indexed_shards
from stedfm_hf.data.repository.layout import CONFIG, INDEX_FILE, PREVIEW
from stedfm_hf.data.repository.planes import PLANE_COLUMNS
from stedfm_hf.data.repository.remote import RemoteFiles
from stedfm_hf.data.repository.row_groups import RowGroups
from stedfm_hf.data.repository.shards import GROUPS_PER_SHARD, Shard
from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.storage import as_path, check_bucket

_HUB_ID = re.compile(rf"({HUB})?[\w-][\w.-]*/[\w.-]+/?(@.+)?")
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

    @cached_property
    def groups(self) -> RowGroups:
        """Numbers of the row groups."""
        return RowGroups(self.shards)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.groups.first_row[-1])


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
    check_repository_name(repo)
    indexed = indexed_shards(repo, token=token)
    paths_of = _data_files(repo, token) if indexed is None else {}
    if split not in (splits := indexed or paths_of):
        raise UserError(f"{repo}: has no split {split!r}; choose from {', '.join(splits)}")
    if indexed is None:
        shards = tuple(map(Shard, paths_of[split], _groups_of_footers(paths_of[split], token)))
    else:
        shards = indexed[split]
    if not any(shard.rows for shard in shards):
        raise UserError(f"{repo}: split {split!r} is empty; choose another split")
    labels, columns = _labels_and_columns(shards[0].file, token)
    return SplitFiles(str(repo), split, shards, labels, token, columns)


def find_split_names(repo: str | os.PathLike[str], *, token: str | None = None) -> tuple[str, ...]:
    """Return the names of the splits of a data set; see `find_split` for arguments and errors."""
    check_repository_name(repo)
    indexed = indexed_shards(repo, token=token)
    return tuple(_data_files(repo, token) if indexed is None else indexed)


def check_repository_name(repo: str | os.PathLike[str]) -> None:
    """Check that a name can be a data set, before the `datasets` library is imported.

    Args:
        repo: Local folder, Hub id or `hf://datasets/` path.

    Raises:
        UserError: The name is neither a folder with Parquet files nor a URL or Hub id.
    """
    name = str(repo)
    folder = Path(name)
    if folder.is_dir():
        if not any(folder.rglob("*.parquet")):
            raise UserError(
                f"{name}: holds no Parquet file; give a data set, such as one that `stedfm data build` wrote"
            )
    elif folder.exists():
        raise UserError(f"{name}: is a file; give the folder of a data set")
    elif not is_remote_folder(name) and not _HUB_ID.fullmatch(name):
        raise UserError(f"{name}: no such folder; check the path (a Hub id is OWNER/NAME)")


def is_remote_folder(repo: str | os.PathLike[str]) -> bool:
    """Return whether a data set is a folder in another file system than that of this machine or the Hub."""
    return "://" in str(repo) and not str(repo).startswith(HUB)


def check_folder_name(repo: str | os.PathLike[str]) -> None:
    """Check that the path of a local data set has no characters that the `datasets` library takes for a glob.

    Args:
        repo: Local folder; other names are not checked.

    Raises:
        UserError: The path holds `*`, `?` or `[`.
    """
    folder = Path(str(repo))
    if folder.is_dir() and (signs := [sign for sign in "*?[" if sign in str(folder.absolute())]):
        raise UserError(f"{repo}: the path of a data set must not contain {' or '.join(signs)}; rename the folder")


def _data_files(repo: str | os.PathLike[str], token: str | None) -> dict[str, list[str]]:
    """Return the paths or URLs of the Parquet files of each split, as the `datasets` library finds them.

    The configuration `crops` is used, or, without one, the first that is not the preview.

    Raises:
        UserError: There is no such data set, the library cannot load it, or a file is not a Parquet file.
    """
    if is_remote_folder(repo):
        check_bucket(as_path(repo))
        raise UserError(
            f"{repo}: has no readable {INDEX_FILE}, or it does not list the files of the folder `data`; check the "
            "access, and give a data set that `stedfm data build` wrote"
        )
    check_folder_name(repo)
    import datasets  # takes a second to import

    name, _, revision = str(repo).removeprefix(HUB).rstrip("/").partition("@")
    if Path(str(repo)).is_dir():
        name, revision = str(Path(str(repo)).absolute()), ""
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


def _groups_of_footers(paths: Sequence[str], token: str | None) -> list[tuple[int, ...]]:
    """Read the number of rows of each row group of each shard from the footers of the shards."""
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        metadata = pool.map(lambda path: _metadata(path, token), paths)
        return [tuple(each.row_group(number).num_rows for number in range(each.num_row_groups)) for each in metadata]


def _metadata(path: str, token: str | None) -> pq.FileMetaData:
    """Read the footer of a shard."""
    with damage_errors(path):
        if "://" in path:
            return pq.read_metadata(RemoteFiles(path, token).read_footer(path, groups=GROUPS_PER_SHARD))
        return pq.read_metadata(path)


def _labels_and_columns(path: str, token: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the names of the classes (() without classes) and of the columns from the schema of a shard."""
    schema = _metadata(path, token).schema.to_arrow_schema()
    # The features of the `datasets` library, which takes seconds to import.
    record = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    label = record.get("info", {}).get("features", {}).get("label")
    return tuple(label.get("names", ())) if isinstance(label, dict) else (), tuple(schema.names)


class damage_errors:
    """Context manager that converts errors of Parquet to a message with the path of the file.

    Args:
        path: Path or URL of the file.

    Raises:
        UserError: The file is missing, truncated or damaged.
    """

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
