"""Columns that describe images, from a table with their paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stedfm_hf.runs import UserError, counted, print_note

PATH = "path"


def read_annotations(table: Path, paths: Sequence[str]) -> dict[str, np.ndarray]:
    r"""Read the columns of a table for some images.

    Args:
        table: CSV (separated by commas, semicolons or tabs) or Parquet table with a column `path`: relative to the
            input as in the tables of `stedfm embed`, or only the name of the file where it is unique.
        paths: Path of each image (n,).

    Returns:
        Values of each column but `path` (n,) by name: float64 for columns of numbers, with NaN where unknown, and
        otherwise str, with "" where unknown.

    Raises:
        UserError: If the table cannot be read, has no column `path`, gives an image two rows, or matches no image.

    Example:
        >>> import tempfile
        >>> table = Path(tempfile.mkdtemp(), "conditions.csv")
        >>> _ = table.write_text("path,condition\na.tif,control\n")
        >>> read_annotations(table, ["day1/a.tif", "day1/b.tif"])["condition"].tolist()
        ['control', '']
    """
    frame = _read(table)
    by_path = {str(path): number for number, path in enumerate(frame[PATH])}
    if len(by_path) < len(frame):
        twice = frame[PATH][frame[PATH].duplicated()].iloc[0]
        raise UserError(f"{table}: has two rows for {twice}; keep one")
    names = [path.rpartition("/")[2] for path in paths]
    # A path has several rows if its file has several channels; a name is unique if it has one path.
    paths_of_name = Counter(path.rpartition("/")[2] for path in set(paths))
    at = np.array(
        [
            by_path.get(path, by_path.get(name, -1) if paths_of_name[name] == 1 else -1)
            for path, name in zip(paths, names, strict=True)
        ]
    )
    known = at >= 0
    if not known.any():
        raise UserError(
            f"{table}: describes none of the images; its paths (such as {next(iter(by_path), 'none')!r}) must be "
            f"those of the input, such as {paths[0]!r}, or their file names"
        )
    if not known.all():
        print_note(f"note: {table} has no row for {counted(int((~known).sum()), 'image')}")
    found = {}
    for name in frame.columns.drop(PATH):
        column = frame[name].iloc[at]
        if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
            found[str(name)] = np.where(known & column.notna(), column.astype(str), "").astype(str)
        else:
            found[str(name)] = np.where(known, column.to_numpy(float, na_value=np.nan), np.nan)
    return found


def _read(table: Path) -> pd.DataFrame:
    """Read a table with the column `path`.

    Raises:
        UserError: If it cannot be read, or has no such column.
    """
    try:
        if table.suffix.lower() == ".parquet":
            frame = pd.read_parquet(table)
        else:
            frame = pd.read_csv(table, sep=None, engine="python", encoding="utf-8-sig")
    except Exception as error:  # pandas raises errors of many types
        raise UserError(f"--annotations {table}: cannot be read ({' '.join(str(error).split())})") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    if PATH not in frame.columns:
        raise UserError(
            f"--annotations {table}: has no column path (its columns are {', '.join(frame.columns)}); name the column "
            "of the image files path"
        )
    frame[PATH] = frame[PATH].astype(str).str.strip().str.replace("\\", "/", regex=False)
    return frame
