"""What the pages of all reports say alike (ours)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stedfm_hf.reports import Section, Table

LEVEL = 0.05
NONE = "–"


def caveats(doubts: Sequence[str], *, simulated: bool) -> list[str]:
    """What must be read before any figure, a sentence each."""
    found = []
    if doubts:
        found.append(f"No conclusion can be drawn: {'; '.join(doubts)}. The figures only show that everything works.")
    if simulated:
        found.append("The images are simulated: what holds for them need not hold for real ones.")
    return found


def verdicts(comparisons: Iterable[Mapping[str, Any]], name: Callable[[str], str]) -> str:
    """What one is in comparison with others, without a verb; "" where there are none.

    Args:
        comparisons: with `other`, `difference` and `p_holm`.
        name: gives the name of a key.

    Example:
        >>> rows = [{"other": "otsu", "difference": 0.2, "p_holm": 0.01}, {"other": "b", "difference": 0, "p_holm": 1}]
        >>> verdicts(rows, str.capitalize)
        'better than Otsu; not clearly different from B'
    """
    groups: dict[str, list[str]] = {}
    for row in comparisons:
        better = "better than" if row["difference"] > 0 else "worse than"
        word = "not clearly different from" if row["p_holm"] >= LEVEL else better
        groups.setdefault(word, []).append(name(row["other"]))
    return "; ".join(f"{word} {', '.join(names)}" for word, names in groups.items())


def which_differ(
    comparisons: Sequence[Mapping[str, Any]],
    *,
    first: str,
    alone: bool,
    noun: str,
    name: Callable[[str], str],
    header: Sequence[str],
    cells: Callable[[Mapping[str, Any]], Sequence[str]],
    text: str,
    doubted: bool,
) -> Section:
    """The section of the tests: one row for each pair.

    Args:
        comparisons: with `model`, `other`, `p` and `p_holm`.
        first: name of the first model.
        alone: whether it is the only one that others are compared with.
        noun: what is compared, in the plural.
        name: gives the name of a key.
        header: of what stands between the names and p.
        cells: of a comparison, under the header.
        text: how they were compared.
        doubted: whether there are too few source images.
    """
    rows = []
    for each in comparisons:
        one, other = (unbroken(name(each[which])) for which in ("model", "other"))
        label = "different" if each["p_holm"] < LEVEL else "not clearly"
        names = other if alone else f"{one} − {other}"
        rows.append((names, *cells(each), _p(each["p"]), _p(each["p_holm"]), label))
    lines = [text, *(["There are too few source images for these tests to say anything."] if doubted else [])]
    head = (f"{first} against" if alone else noun, *header, "p", "p, corrected", "")
    return Section("Which differ?", lines, table=Table(head, rows))


def left_out(title: str, failed: Mapping[str, str]) -> list[Section]:
    """The section of the images that failed, with the reason; none where none did."""
    return [Section(title, table=Table(("image", "why"), list(failed.items())))] if failed else []


def unbroken(name: str) -> str:
    """A name that stays on one line of a table."""
    return name.replace(" ", "\u00a0").replace("-", "\u2011")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
