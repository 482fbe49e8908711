"""Labels of image files, from the names of their folders or from a table."""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.images.mask_names import IMAGES, MASKS
from stedfm_hf.runs.errors import UserError

FROM_FOLDERS = "folder"
"""Value of `--labels` that reads labels from the names of folders."""
COLUMNS = ("path", "label")
"""Columns of a table of labels."""


def folder_labels(paths: Sequence[str], *, simulated: bool = False) -> list[str | None]:
    """Return labels from folder names: the first folder of each path.

    Files have labels only if all of them are in folders, and there are at least two folders with at least two files
    each.

    Args:
        paths: Paths relative to the input, with forward slashes.
        simulated: Whether the first folder is a split, as in simulated data, and the second one the label.


    Returns:
        The label of each path, or None for all paths.

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
    """Labels of image files.

    Attributes:
        labels: Label of each file that has one, by path.
        missing: Reason why the other files have no label.
        unused: Paths in the table that match no file.
    """

    labels: dict[str, str]
    missing: str
    unused: tuple[str, ...] = ()


def label_files(paths: Iterable[str], labels: str | os.PathLike[str]) -> FileLabels:
    """Return the labels of files.

    Args:
        paths: Paths of the files, relative to their input, with forward slashes.
        labels: `"folder"` for the first folder of each path, or a CSV or Parquet table with the columns `path` and
            `label`. Paths in the table are relative to the input; the file name alone is enough if it is unique.

    Returns:
        The labels, and the rows of the table that match no file.

    Raises:
        UserError: The table cannot be read, lacks a column, gives a file two labels, or labels none of the files; a
            file name in it matches several files; or the folders hold images and masks instead of classes.

    Example:
        >>> label_files(["actin/a.tif", "b.tif"], "folder").labels
        {'actin/a.tif': 'actin'}
    """
    paths = list(dict.fromkeys(paths))
    if os.fspath(labels) == FROM_FOLDERS:
        label_of = {path: path.split("/")[0] for path in paths if "/" in path}
        if not label_of:
            raise UserError(
                "--labels folder: the INPUT has no subfolders with images; give the folder that contains the folders "
                "of the classes"
            )
        _check_folders(set(label_of.values()))
        return FileLabels(label_of, "is not in a subfolder of the INPUT, so it has no label")
    return _labels_from_rows(Path(labels), _rows(Path(labels)), paths)


def _check_folders(names: set[str]) -> None:
    """Check that folders are not the images and masks of annotated data.

    Raises:
        UserError: The folders are called images and masks (labels, annotations), or images alone.
    """
    images = sorted(name for name in names if name.lower() in IMAGES)
    masks = sorted(name for name in names if name.lower() in MASKS)
    if images and (masks or len(names) == 1):
        use_masks = f", and the masks with --masks INPUT/{masks[0]}" if masks else ""
        raise UserError(
            f"--labels folder: the INPUT holds {' and '.join([*images, *masks])}, not folders of classes; give "
            f"INPUT/{images[0]} as INPUT{use_masks}"
        )


def _rows(table: Path) -> list[tuple[str, str]]:
    """Return path and label of all rows that have both, as text, so that the label 007 is kept."""
    suffix = table.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UserError(f"--labels {table}: neither `folder` nor a table; give folder, or a .csv or .parquet file")
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
        raise UserError(
            f"{table}: no column {' and no column '.join(missing)} (its columns are {has}); name the columns path and "
            "label"
        )
    rows = [(_text(record["path"]).replace("\\", "/"), _text(record["label"])) for record in records]
    return [(path.removeprefix("./"), label) for path, label in rows if path and label]


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _labels_from_rows(table: Path, rows: Sequence[tuple[str, str]], paths: Sequence[str]) -> FileLabels:
    """Assign the labels of a table to files, by their path or, if it is unique, by their file name.

    Args:
        table: Path of the table, for messages.
        rows: Path and label of each row.
        paths: Paths of all files.

    Raises:
        UserError: A file name matches several files, a file has two labels, or no file has a label.
    """
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_name[path.rpartition("/")[2]].append(path)
    known_paths, label_of, unused = set(paths), dict[str, str](), list[str]()
    for path, label in rows:
        matches = [path] if path in known_paths else by_name.get(path, [])
        if len(matches) > 1:
            raise UserError(
                f"{table}: {path!r} matches {len(matches)} files ({', '.join(matches[:3])}); write paths relative to "
                "the INPUT"
            )
        if not matches:
            unused.append(path)
        elif label_of.setdefault(matches[0], label) != label:
            raise UserError(f"{table}: {path!r} has two labels ({label_of[matches[0]]!r}, {label!r}); keep one")
    if not label_of:
        example = f"such as {rows[0][0]!r}" if rows else "none"
        raise UserError(
            f"{table}: labels none of the {len(paths)} files; its paths ({example}) must be relative to the INPUT, "
            f"such as {paths[0]!r}"
        )
    return FileLabels(label_of, "has no row in the table of labels", tuple(unused))
