"""Targets from the entries of a label column: classes, multilabel targets, or numbers for a regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from stedfm_hf.runs.errors import UserError


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of the rows that have one.

    Attributes:
        classes: Names of the classes in order; empty for a regression.
        values: Class of each row, (n,) int64; multilabel targets of 0 and 1, (n, C) int64; or numbers, (n,) float64.
        rows: Numbers of the rows that have a target, (n,) int64.
    """

    classes: tuple[str, ...]
    values: np.ndarray
    rows: np.ndarray


def read_targets(
    entries: Sequence[Any], *, names: Sequence[str] = (), where: str, image_ids: Sequence[str]
) -> Targets:
    """Determine the type of the targets and number the classes.

    Strings and whole numbers are classes. Decimal numbers are targets of a regression. Lists are multilabel: they
    hold names or numbers of classes, or, if all have one length, a 0 or 1 per class. Class names are compared as
    whole strings. Classes without a row are dropped, and classes without a defined order are sorted.

    Args:
        entries: Entry of each row; None where there is none.
        names: Names of the classes that whole numbers refer to, in order; if empty, the numbers are the names.
        where: Name of the data set, for messages.
        image_ids: Name of each row, for messages.

    Raises:
        UserError: The entries have an unsupported type or several types, one is NaN or infinite, or no row has one.

    Example:
        >>> found = read_targets(["6hMeOH", None, "16hMeOH"], where="table", image_ids=["a", "b", "c"])
        >>> found.classes, found.values.tolist(), found.rows.tolist()
        (('16hMeOH', '6hMeOH'), [1, 0], [0, 2])
    """
    rows = np.array([number for number, entry in enumerate(entries) if entry is not None], np.int64)
    if not len(rows):
        raise UserError(
            f"{where}: no image has a label; select the column of the labels with --target, or label some images"
        )
    labels = [entries[row] for row in rows]
    kinds = {_kind(entry) for entry in labels}
    if kinds == {"whole", "fraction"} and not names:
        kinds = {"fraction"}
    if "other" in kinds or len(kinds) > 1:
        first = next((entry for entry in labels if _kind(entry) == "other"), labels[-1])
        image_id = next(image_ids[row] for row, entry in zip(rows, labels, strict=True) if entry is first)
        raise UserError(
            f"{where}: the labels have an unsupported type or several types ({image_id} has {first!r}, a "
            f"{type(first).__name__}); use one str, one int, one float or one list of class names for every image"
        )
    (kind,) = kinds
    if kind == "fraction":
        values = np.array([float(entry) for entry in labels])
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values))
            raise UserError(
                f"{where}: {len(bad)} of {len(values)} targets are NaN or infinite (first in "
                f"{image_ids[rows[bad[0]]]}); correct them, or leave them empty to skip these images"
            )
        return Targets((), values, rows)
    if kind == "list":
        return _multilabel(labels, names, rows, where)
    texts = [_class_name(entry, names, where) for entry in labels]
    classes = _ordered(texts, names)
    return Targets(classes, np.array([classes.index(text) for text in texts], np.int64), rows)


def _kind(entry: Any) -> str:
    """Return the type of an entry: `name`, `whole`, `fraction`, `list` or `other`."""
    if isinstance(entry, str):
        return "name"
    if isinstance(entry, Integral):  # bool, too
        return "whole"
    if isinstance(entry, Real):
        return "fraction"
    return "list" if isinstance(entry, list | tuple | np.ndarray) else "other"


def _multilabel(known: list[Any], names: Sequence[str], rows: np.ndarray, where: str) -> Targets:
    """Return multilabel targets as a table of 0 and 1."""
    entries = [list(entry) for entry in known]
    kinds = {_kind(each) for entry in entries for each in entry}
    if len(kinds) > 1 or kinds & {"fraction", "other", "list"}:
        raise UserError(f"{where}: the label lists contain neither int nor str; use names or numbers of classes")
    lengths = {len(entry) for entry in entries}
    flags = len(lengths) == 1 and lengths != {1} and kinds == {"whole"}
    if flags and all(each in (0, 1) for entry in entries for each in entry) and len(names) in (0, *lengths):
        table = np.array(entries, np.int64)
        return Targets(tuple(names) or tuple(map(str, range(table.shape[1]))), table, rows)
    texts = [[_class_name(each, names, where) for each in entry] for entry in entries]
    classes = _ordered([text for each in texts for text in each], names)
    table = np.array([[name in each for name in classes] for each in texts], np.int64).reshape(len(texts), -1)
    return Targets(classes, table, rows)


def _class_name(entry: Any, names: Sequence[str], where: str) -> str:
    """Return the class name of an entry: the text, the name of the number, or the number as text without names."""
    if isinstance(entry, str):
        return entry
    if not names:
        return str(int(entry)) if not isinstance(entry, bool) else str(entry)
    if not 0 <= int(entry) < len(names):
        raise UserError(f"{where}: label {entry} is not one of the {len(names)} classes ({', '.join(names)})")
    return names[int(entry)]


def _ordered(texts: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that occur: in the order of `names`, else numbers by value, else by name."""
    present = set(texts)
    if names:
        return tuple(name for name in names if name in present)
    return tuple(sorted(present, key=lambda text: (int(text) if text.lstrip("-").isdecimal() else math.inf, text)))
