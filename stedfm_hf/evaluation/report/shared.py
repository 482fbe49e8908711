"""Sentences, tables and files that all evaluation reports share."""

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
"""Significance level of the comparisons."""
NONE = "–"
"""Text of an undefined value."""
UNKNOWN_SOURCES = (
    "Every image is treated as a separate source image. If several images are from one field of view or sample, set "
    "their sources (--source-pattern): otherwise scores are too high and intervals too narrow."
)
SIMULATED = "The images are simulated. Do not draw conclusions about real images."


@dataclass(frozen=True)
class MethodInfo:
    """A model or baseline.

    Attributes:
        key: Identifier in commands and tables.
        name: Name in the report.
        kind: "model", "zero-shot" or "baseline".
        weights_sha256: SHA-256 checksum of the weights; None without weights.
    """

    key: str
    name: str
    kind: Literal["model", "zero-shot", "baseline"]
    weights_sha256: str | None


class MethodSummaries:
    """Methods and rows of their summaries, found by key."""

    methods: Sequence[MethodInfo]
    summary: Sequence[dict[str, Any]]

    def name(self, key: str) -> str:
        """Return the name of a method.

        Args:
            key: Key of the method.
        """
        return next(each.name for each in self.methods if each.key == key)

    def row(self, method: str, setting: str) -> dict[str, Any]:
        """Return the summary of a method in a setting.

        Args:
            method: Key of the method.
            setting: Setting of the runs, or what is ranked.
        """
        return next(row for row in self.summary if (row["method"], row["setting"]) == (method, setting))


def limitation_sentences(limitations: Sequence[str], *, simulated: bool) -> list[str]:
    """Return sentences on limitations, which precede all results.

    Args:
        limitations: Reasons why no conclusion can be drawn.
        simulated: Whether the images are simulated.
    """
    found = []
    if limitations:
        found.append(
            f"No conclusion can be drawn: {'; '.join(limitations)}. The metrics only show that the evaluation runs."
        )
    if simulated:
        found.append("The images are simulated: results on real images may differ.")
    return found


def verdicts(comparisons: Iterable[Mapping[str, Any]], name: Callable[[str], str]) -> str:
    """Describe the comparisons of one method with others.

    Args:
        comparisons: Rows with `other`, `difference` and `p_holm`.
        name: Function from the key of a method to its name.

    Returns:
        Text without a verb; empty without comparisons.

    Example:
        >>> rows = [{"other": "otsu", "difference": 0.2, "p_holm": 0.01}, {"other": "b", "difference": 0, "p_holm": 1}]
        >>> verdicts(rows, str.capitalize)
        'significantly better than Otsu; not significantly different from B'
    """
    groups: dict[str, list[str]] = {}
    for row in comparisons:
        better = "significantly better than" if row["difference"] > 0 else "significantly worse than"
        word = "not significantly different from" if row["p_holm"] >= LEVEL else better
        groups.setdefault(word, []).append(name(row["other"]))
    return "; ".join(f"{word} {', '.join(names)}" for word, names in groups.items())


def comparison_section(
    comparisons: Sequence[Mapping[str, Any]],
    *,
    first: str,
    single_model: bool,
    noun: str,
    name: Callable[[str], str],
    header: Sequence[str],
    cells: Callable[[Mapping[str, Any]], Sequence[str]],
    text: str,
    limited: bool,
) -> Section:
    """Return the section of the pairwise comparisons.

    Args:
        comparisons: Rows of the comparisons.
        first: Name of the first model.
        single_model: Whether only one model is compared with baselines.
        noun: Plural of what is compared, such as "models".
        name: Function from the key of a method to its name.
        header: Column names between the methods and the p-values.
        cells: Function from a row to the cells of these columns.
        text: Explanation of the test.
        limited: Whether there are too few source images for the tests.
    """
    rows = []
    for each in comparisons:
        model, other = (nonbreaking(name(each[key])) for key in ("model", "other"))
        label = "yes" if each["p_holm"] < LEVEL else "no"
        names = other if single_model else f"{model} − {other}"
        rows.append((names, *cells(each), _p(each["p"]), _p(each["p_holm"]), label))
    lines = [text, *(["There are too few source images to interpret these tests."] if limited else [])]
    head = (f"{first} compared with" if single_model else noun, *header, "p", "corrected p", "significant")
    return Section("Pairwise comparisons", lines, table=Table(head, rows))


def failed_section(title: str, failed: Mapping[str, str]) -> list[Section]:
    """Return the section of failed images, if there are any.

    Args:
        title: Title of the section.
        failed: Reason why an image failed, by its image id.
    """
    return [Section(title, table=Table(("image", "reason"), list(failed.items())))] if failed else []


def page_facts(splits: Mapping[str, Mapping[str, Any]], test: SourcedImages[Any], **others: str) -> dict[str, str]:
    """Return the facts at the top of a page.

    Args:
        splits: Numbers of images and source images, by split.
        test: Test images.
        **others: Further facts.
    """
    facts = {
        f"{name} images": f"{split['images']} from {counted(split['sources'], 'source')}"
        for name, split in splits.items()
    }
    return facts | others | ({"images": "simulated"} if test.simulated else {})


def method_section(text: Sequence[str], methods: Sequence[MethodInfo], noun: str) -> Section:
    """Return the last section: protocol and weights.

    Args:
        text: Paragraphs on the protocol.
        methods: Models and baselines.
        noun: Name of a method, such as "model".
    """
    rows = [(each.name, each.key, (each.weights_sha256 or NONE)[:12]) for each in methods]
    return Section("Methods", text, table=Table((noun, "identifier", "weights (SHA-256)"), rows))


def baseline_descriptions(methods: Sequence[MethodInfo], sentences: Mapping[str, str]) -> list[str]:
    """Return one paragraph on each baseline among the methods.

    Args:
        methods: Models and baselines.
        sentences: Description of each baseline, by key.
    """
    keys = {each.key for each in methods}
    return [sentence for key, sentence in sentences.items() if key in keys]


def nonbreaking(name: str) -> str:
    """Replace spaces and hyphens by non-breaking ones.

    Args:
        name: Name in a table.

    Example:
        >>> nonbreaking("raw pixel") == "raw" + chr(160) + "pixel"
        True
    """
    return name.replace(" ", "\u00a0").replace("-", "\u2011")


def _p(value: float) -> str:
    """Format a p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


RESULTS, PAGE = "results.json", "report.html"
OTHER_FILES = ("results.parquet", "predictions.parquet", "figures")
"""Other files of `evaluate knn` and `evaluate probe`."""


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, atomically.

    Args:
        table: Table to write.
        path: File to write.
    """
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not support, by None.

    Args:
        value: JSON data.

    Example:
        >>> finite({"mean": float("nan"), "low": [0.5]})
        {'mean': None, 'low': [0.5]}
    """
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
