"""Labels of image files, from the names of their folders or from a table."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.images.folders import composed
from stedfm_hf.images.mask_name_table import IMAGES, MASKS
from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.progress import print_note

FROM_FOLDERS = "folder"
"""Value of `--labels` that reads labels from the names of folders."""
COLUMNS = ("path", "label")
"""Columns of a table of labels."""
SEPARATORS = (",", ";", "\t")
"""Separators of the columns of a text table; Excel writes semicolons in many languages."""
TEXT_TABLES = (".csv", ".tsv", ".txt")
SPREADSHEETS = (".xlsx", ".xls", ".ods")


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


def label_files(paths: Iterable[str] | Mapping[str, Path], labels: str | os.PathLike[str]) -> FileLabels:
    """Return the labels of files.

    Args:
        paths: Paths of the files, relative to their input, with forward slashes; or the file of each path, so that the
            table may also hold absolute paths.
        labels: `"folder"` for the first folder of each path, or a CSV, TSV or Parquet table with the columns `path`
            and `label`, in upper or lower case. Columns of text are separated by commas, semicolons or tabs. Paths in
            the table are relative to the input; the file name alone is enough if it is unique.

    Returns:
        The labels, and the rows of the table that match no file.

    Raises:
        UserError: The table cannot be read, lacks a column, gives a file two labels, or labels none of the files; a
            file name in it matches several files; or the folders hold images and masks instead of classes.

    Example:
        >>> label_files(["actin/a.tif", "b.tif"], "folder").labels
        {'actin/a.tif': 'actin'}
    """
    files = {each: file for each, file in paths.items()} if isinstance(paths, Mapping) else dict.fromkeys(paths)
    paths = list(files)
    if os.fspath(labels) == FROM_FOLDERS:
        label_of = {path: path.split("/")[0] for path in paths if "/" in path}
        if not label_of:
            raise UserError(
                "--labels folder: the INPUT has no subfolders with images; give the folder that contains the folders "
                "of the classes"
            )
        _check_folders(set(label_of.values()))
        return FileLabels(label_of, "is not in a subfolder of the INPUT, so it has no label")
    return _labels_from_rows(Path(labels), _rows(Path(labels)), files)


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
    if suffix in SPREADSHEETS:
        raise UserError(f"--labels {table}: is a spreadsheet; save it as CSV")
    if suffix not in (*TEXT_TABLES, ".parquet"):
        known = ", ".join((*TEXT_TABLES, ".parquet"))
        raise UserError(
            f"--labels {table}: neither `folder` nor a table; give folder, or a file of these types: {known}"
        )
    try:
        columns, records = _read_parquet(table) if suffix == ".parquet" else _read_text_table(table)
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are of these kinds
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{table}: the table of labels cannot be read ({' '.join(str(reason).split())})") from error
    keys = [_column(name) for name in columns]
    if missing := [name for name in COLUMNS if name not in keys]:
        has = ", ".join(map(str, columns)) or "none"
        raise UserError(
            f"{table}: no column {' and no column '.join(missing)} (its columns are {has}); name the columns path and "
            "label"
        )
    if twice := [name for name in COLUMNS if keys.count(name) > 1]:
        raise UserError(f"{table}: has two columns {twice[0]}; remove one")
    path_at, label_at = (keys.index(name) for name in COLUMNS)
    rows = []
    for number, record in enumerate(records, start=2):
        if any(map(_text, record[len(columns) :])):
            raise UserError(
                f"{table}: row {number} has {len(record)} cells and the header has {len(columns)}; put cells that "
                "contain the separator in double quotes"
            )
        if len(record) > max(path_at, label_at):
            rows.append((_text(record[path_at]), _text(record[label_at])))
    return [(path, label) for path, label in rows if path and label]


def _read_parquet(table: Path) -> tuple[list[str], list[list[object]]]:
    """Return the names of the columns, and the cells of each row."""
    import pyarrow.parquet as pq

    content = pq.read_table(table)
    return content.column_names, [list(row.values()) for row in content.to_pylist()]


def _read_text_table(table: Path) -> tuple[list[str], list[list[object]]]:
    """Return the names of the columns, and the cells of each row, of a table as Excel and other programs write it.

    The separator is the one with which the first row has the columns; `sep=;` may precede it. The encoding is UTF-8,
    UTF-16 with its mark, or Windows-1252, which is reported.
    """
    content = table.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
            print_note(f"note: {table} is not UTF-8; read as Windows-1252")
    if match := re.match(r"sep=(.)\r?\n", text):
        text = text[match.end() :]
    header = text.split("\n", 1)[0]
    by_separator = {each: next(csv.reader([header], delimiter=each), []) for each in SEPARATORS}
    names = {each: {_column(name) for name in found} for each, found in by_separator.items()}
    separator = max(SEPARATORS, key=lambda each: (len(names[each] & set(COLUMNS)), len(by_separator[each])))
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    return (rows[0], [list(row) for row in rows[1:]]) if rows else ([], [])


def _column(name: str) -> str:
    return str(name).strip().lower()


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _labels_from_rows(table: Path, rows: Sequence[tuple[str, str]], files: Mapping[str, Path | None]) -> FileLabels:
    """Assign the labels of a table to files, by their path or, if it is unique, by their file name.

    Args:
        table: Path of the table, for messages.
        rows: Path and label of each row.
        files: File of each path, or None.

    Raises:
        UserError: A file name matches several files, a file has two labels, or no file has a label.
    """
    find = _Finder(files)
    label_of, unused = dict[str, str](), list[str]()
    for path, label in rows:
        matches = find(path)
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
            f"{table}: labels none of the {len(files)} files; its paths ({example}) must be relative to the INPUT, "
            f"such as {next(iter(files))!r}"
        )
    return FileLabels(label_of, "has no row in the table of labels", tuple(unused))


class _Finder:
    """Function that returns the files that a path of a table means.

    Args:
        files: File of each path, or None.
    """

    def __init__(self, files: Mapping[str, Path | None]) -> None:
        self._paths: defaultdict[str, list[str]] = defaultdict(list)
        self._names: defaultdict[str, list[str]] = defaultdict(list)
        self._absolute: defaultdict[str, list[str]] = defaultdict(list)
        for path, file in files.items():
            self._paths[composed(path)].append(path)
            self._names[composed(path).rpartition("/")[2]].append(path)
            if file is not None:
                for each in {os.path.abspath(file), os.path.realpath(file)}:
                    self._absolute[composed(Path(each).as_posix())].append(path)

    def __call__(self, path: str) -> list[str]:
        """Return the files of a path as written, with backslashes as slashes, absolute, or of its file name."""
        name = composed(path)
        slashes = name.replace("\\", "/").removeprefix("./")
        for found in (self._paths.get(name), self._paths.get(slashes), self._absolute.get(slashes)):
            if found:
                return found
        return self._names.get(slashes, [])
