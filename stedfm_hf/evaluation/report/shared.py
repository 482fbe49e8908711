"""What all reports have in common: sentences, tables and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.reports import Section, Table
from stedfm_hf.runs import atomic_path, counted

LEVEL = 0.05
NONE = "–"
SIMULATED = "The images are simulated. Nothing here is a statement about real images."


@dataclass(frozen=True)
class Contestant:
    """A model or baseline.

    Args:
        key: what it is called in commands and tables.
        name: what it is called on the page.
        kind: a model that was asked for, or a baseline.
        weights_sha256: of its weights, if it has some.
    """

    key: str
    name: str
    kind: Literal["model", "baseline"]
    weights_sha256: str | None


def caveats(limitations: Sequence[str], *, simulated: bool) -> list[str]:
    """What must be read before any figure, a sentence each."""
    found = []
    if limitations:
        found.append(
            f"No conclusion can be drawn: {'; '.join(limitations)}. The figures only show that everything works."
        )
    if simulated:
        found.append("The images are simulated: what holds for them need not hold for real ones.")
    return found


def verdicts(comparisons: Iterable[Mapping[str, Any]], name: Callable[[str], str]) -> str:
    """What one is in comparison with others, without a verb; "" where there are none.

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
    limited: bool,
) -> Section:
    """The section of the tests: one row for each pair, with `cells` under `header` between the names and p."""
    rows = []
    for each in comparisons:
        one, other = (unbroken(name(each[which])) for which in ("model", "other"))
        label = "different" if each["p_holm"] < LEVEL else "not clearly"
        names = other if alone else f"{one} − {other}"
        rows.append((names, *cells(each), _p(each["p"]), _p(each["p_holm"]), label))
    lines = [text, *(["There are too few source images for these tests to say anything."] if limited else [])]
    head = (f"{first} against" if alone else noun, *header, "p", "p, corrected", "")
    return Section("Which differ?", lines, table=Table(head, rows))


def left_out(title: str, failed: Mapping[str, str]) -> list[Section]:
    """The section of the images that failed, with the reason; none where none did."""
    return [Section(title, table=Table(("image", "why"), list(failed.items())))] if failed else []


def facts_of(splits: Mapping[str, Mapping[str, Any]], test: SourcedImages[Any], **others: str) -> dict[str, str]:
    """The facts at the top of a page: images and source images of each split, others, and whether all is simulated."""
    facts = {
        f"{name} images": f"{split['images']} of {counted(split['sources'], 'source')}"
        for name, split in splits.items()
    }
    return facts | others | ({"images": "simulated"} if test.simulated else {})


def how_it_was_done(text: Sequence[str], contestants: Sequence[Contestant], noun: str) -> Section:
    """The last section: how it was done, and the weights of what was compared."""
    rows = [(each.name, each.key, (each.weights_sha256 or NONE)[:12]) for each in contestants]
    return Section("How it was done", text, table=Table((noun, "named", "weights (sha256)"), rows))


def sentences_on(contestants: Sequence[Contestant], sentences: Mapping[str, str]) -> list[str]:
    """The paragraph on the baselines that were compared; none where there are none."""
    keys = {each.key for each in contestants}
    found = [sentence for key, sentence in sentences.items() if key in keys]
    return [" ".join(found)] if found else []


def unbroken(name: str) -> str:
    """A name that stays on one line of a table."""
    return name.replace(" ", "\u00a0").replace("-", "\u2011")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


RESULTS, PAGE = "results.json", "report.html"
MADE = ("results.parquet", "predictions.parquet", "figures")
"""The other files of a comparison on labelled images."""


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def finite(value: Any) -> Any:
    """Return the same data without NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
