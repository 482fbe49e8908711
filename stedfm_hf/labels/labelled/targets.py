"""What the entries of a label column mean: classes, several classes at once, or numbers."""

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
    """The targets of some rows.

    Args:
        classes: names of the classes in their order; empty for a regression.
        values: (n,) int64 number of the class, (n, C) int64 of 0 and 1 for several classes at once, or (n,) float64.
        rows: which of the rows they are of: those with a target.
    """

    classes: tuple[str, ...]
    values: np.ndarray
    rows: np.ndarray


def read_targets(
    entries: Sequence[Any], *, names: Sequence[str] = (), where: str, image_ids: Sequence[str]
) -> Targets:
    """Finds out what targets are and numbers the classes.

    Strings and whole numbers are classes, numbers with a fraction are to be predicted by a regression, lists are
    several classes at once: names, numbers of `names`, or, all of one length of 0 and 1, a place for each class.
    Classes are compared as a whole: one whose name is part of another's is another one. Classes that no row has are
    left out, and those without an order of their own are sorted.

    Args:
        entries: one of each row; None where there is none.
        names: of the classes that whole numbers mean, in order; without any, the numbers are the names.
        where: what the entries were read from, for the errors.
        image_ids: name of every row, for the errors.

    Raises:
        UserError: the entries are of another kind or of several kinds, one is NaN or infinite, or no row has one.

    Example:
        >>> found = read_targets(["6hMeOH", None, "16hMeOH"], where="table", image_ids=["a", "b", "c"])
        >>> found.classes, found.values.tolist(), found.rows.tolist()
        (('16hMeOH', '6hMeOH'), [1, 0], [0, 2])
    """
    rows = np.array([number for number, entry in enumerate(entries) if entry is not None], np.int64)
    if not len(rows):
        raise UserError(f"{where}: no image has a label; name the column of the labels, or label some images")
    known = [entries[row] for row in rows]
    kinds = {_kind(entry) for entry in known}
    if kinds == {"whole", "fraction"} and not names:
        kinds = {"fraction"}
    if "other" in kinds or len(kinds) > 1:
        first = next((entry for entry in known if _kind(entry) == "other"), known[-1])
        place = next(image_ids[row] for row, entry in zip(rows, known, strict=True) if entry is first)
        raise UserError(
            f"{where}: the labels are neither int nor str, nor all of one kind ({place} has {first!r}, a "
            f"{type(first).__name__}); give one name or number for each image, a list of names, or a decimal number"
        )
    (kind,) = kinds
    if kind == "fraction":
        values = np.array([float(entry) for entry in known])
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values))
            raise UserError(
                f"{where}: {len(bad)} of {len(values)} targets are NaN or infinite (the first is of "
                f"{image_ids[rows[bad[0]]]}); correct them, or leave them empty to skip these images"
            )
        return Targets((), values, rows)
    if kind == "list":
        return _several(known, names, rows, where)
    texts = [_name(entry, names, where) for entry in known]
    classes = _ordered(texts, names)
    return Targets(classes, np.array([classes.index(text) for text in texts], np.int64), rows)


def _kind(entry: Any) -> str:
    if isinstance(entry, str):
        return "name"
    if isinstance(entry, Integral):  # bool, too
        return "whole"
    if isinstance(entry, Real):
        return "fraction"
    return "list" if isinstance(entry, list | tuple | np.ndarray) else "other"


def _several(known: list[Any], names: Sequence[str], rows: np.ndarray, where: str) -> Targets:
    """Several classes at once, as a table of 0 and 1."""
    entries = [list(entry) for entry in known]
    kinds = {_kind(each) for entry in entries for each in entry}
    if len(kinds) > 1 or kinds & {"fraction", "other", "list"}:
        raise UserError(f"{where}: the labels are lists of neither int nor str; give names or numbers of classes")
    lengths = {len(entry) for entry in entries}
    flags = len(lengths) == 1 and lengths != {1} and kinds == {"whole"}
    if flags and all(each in (0, 1) for entry in entries for each in entry) and len(names) in (0, *lengths):
        table = np.array(entries, np.int64)
        return Targets(tuple(names) or tuple(map(str, range(table.shape[1]))), table, rows)
    texts = [[_name(each, names, where) for each in entry] for entry in entries]
    classes = _ordered([text for each in texts for text in each], names)
    table = np.array([[name in each for name in classes] for each in texts], np.int64).reshape(len(texts), -1)
    return Targets(classes, table, rows)


def _name(entry: Any, names: Sequence[str], where: str) -> str:
    if isinstance(entry, str):
        return entry
    if not names:
        return str(int(entry)) if not isinstance(entry, bool) else str(entry)
    if not 0 <= int(entry) < len(names):
        raise UserError(f"{where}: label {entry} is none of the {len(names)} classes ({', '.join(names)})")
    return names[int(entry)]


def _ordered(texts: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The classes that occur: in the order of `names`, else numbers by value, else by name."""
    there = set(texts)
    if names:
        return tuple(name for name in names if name in there)
    return tuple(sorted(there, key=lambda text: (int(text) if text.lstrip("-").isdecimal() else math.inf, text)))
