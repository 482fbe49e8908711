"""Labels of files, from the folders they lie in or from a table."""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.runs.errors import UserError

FROM_FOLDERS = "folder"
COLUMNS = ("path", "label")


def folder_labels(paths: Sequence[str], *, simulated: bool = False) -> list[str | None]:
    """Labels from folder names: the first folder of a path (behind `gallery` or `query` of a simulated one).

    Images have labels only where all of them lie in folders, of which there are two or more with two files or more.

    Example:
        >>> folder_labels(["a/1.tif", "a/2.tif", "b/1.tif", "b/2.tif"])
        ['a', 'a', 'b', 'b']
        >>> folder_labels(["1.tif", "2.tif"])
        [None, None]
    """
    depth = 1 if simulated else 0
    parts = [path.split("/") for path in paths]
    if any(len(part) < depth + 2 for part in parts):
        return [None] * len(paths)
    names = [part[depth] for part in parts]
    files = Counter(name for _, name in set(zip(paths, names, strict=True)))
    if len(files) < 2 or min(files.values()) < 2:
        return [None] * len(paths)
    return list(names)


@dataclass(frozen=True)
class FileLabels:
    """The labels of some files.

    Args:
        labels: by path; files without one are not in it.
        missing: why a file that is not in `labels` has no label.
        unused: rows of the table that name none of the files.
    """

    labels: dict[str, str]
    missing: str
    unused: tuple[str, ...] = ()


def label_files(paths: Iterable[str], how: str | os.PathLike[str]) -> FileLabels:
    """Finds the label of every file.

    Args:
        paths: of the files, relative to their input, with forward slashes.
        how: "folder" for the first folder of the path, else a CSV or Parquet table with the columns `path` and
            `label`. A path is relative to the input; the name of the file alone is enough where only one has it.

    Raises:
        UserError: the table cannot be read, lacks a column, gives a file two labels or labels none of the files, or
            a file name in it fits several files.

    Example:
        >>> label_files(["actin/a.tif", "b.tif"], "folder").labels
        {'actin/a.tif': 'actin'}
    """
    paths = list(dict.fromkeys(paths))
    if os.fspath(how) == FROM_FOLDERS:
        found = {path: path.split("/")[0] for path in paths if "/" in path}
        if not found:
            raise UserError(
                "--labels folder: no file lies in a folder below the INPUT; name the folder above as INPUT"
            )
        return FileLabels(found, "lies in no folder below the INPUT, so it has no label")
    return _match(Path(how), _rows(Path(how)), paths)


def _rows(table: Path) -> list[tuple[str, str]]:
    """Path and label of every row that has both, as text: a label 007 is no number."""
    suffix = table.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UserError(f"--labels {table}: give folder, or a table named *.csv or *.parquet")
    try:
        if suffix == ".csv":
            with table.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns, records = list(reader.fieldnames or ()), list(reader)
        else:
            import pyarrow.parquet as pq

            content = pq.read_table(table)
            columns, records = content.column_names, content.to_pylist()
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are of these kinds
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{table}: the table of labels cannot be read ({' '.join(str(reason).split())})") from error
    if missing := [name for name in COLUMNS if name not in columns]:
        has = ", ".join(map(str, columns)) or "none"
        raise UserError(f"{table}: has no column {' and no '.join(missing)} (there are: {has}); name them path,label")
    rows = [(_text(record["path"]).replace("\\", "/"), _text(record["label"])) for record in records]
    return [(path.removeprefix("./"), label) for path, label in rows if path and label]


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _match(table: Path, rows: Sequence[tuple[str, str]], paths: Sequence[str]) -> FileLabels:
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_name[path.rpartition("/")[2]].append(path)
    known, found, unused = set(paths), dict[str, str](), list[str]()
    for path, label in rows:
        fitting = [path] if path in known else by_name.get(path, [])
        if len(fitting) > 1:
            raise UserError(
                f"{table}: {path!r} fits {len(fitting)} files ({', '.join(fitting[:3])}); give their paths"
            )
        if not fitting:
            unused.append(path)
        elif found.setdefault(fitting[0], label) != label:
            raise UserError(f"{table}: {path!r} has two labels ({found[fitting[0]]!r}, {label!r}); keep one")
    if not found:
        theirs = f"such as {rows[0][0]!r}" if rows else "none"
        raise UserError(
            f"{table}: labels none of the {len(paths)} files; its paths ({theirs}) must be relative to the INPUT, "
            f"such as {paths[0]!r}"
        )
    return FileLabels(found, "has no row in the table of labels", tuple(unused))
