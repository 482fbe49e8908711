"""Results of the evaluation commands: tables for the terminal, and all metrics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stedfm_hf.labels.annotated.stored import BACKGROUND
from stedfm_hf.metrics.summary import ALL
from stedfm_hf.metrics.weight_distances import METRICS
from stedfm_hf.runs import print_note
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.wording import text_table


@dataclass(frozen=True)
class ReportResult(OutputResult, ABC):
    """Result with a report.

    Attributes:
        record: All metrics, as in the JSON file of the output folder.
    """

    record: dict[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return all metrics."""
        return {"report": str(self.output / "report.html"), **self.record}

    def summary(self) -> str:
        """Return the tables of metrics and the path of the report."""
        return "\n".join([*self.tables(), str(self.output / "report.html")])

    @abstractmethod
    def tables(self) -> Iterator[str]:
        """Yield the tables of metrics."""


class EvaluationResult(ReportResult):
    """Result with a report on the images of a data set."""

    def print_notes(self) -> None:
        """Print the notes and limitations of the report on standard error."""
        for note in (*self.record.get("warnings", ()), *self.record["notes"]):
            print_note(f"note: {note}")
        for limitation in self.record["conclusion"]["limitations"]:
            print_note(f"note: no conclusion can be drawn: {limitation}")
        if self.record["data"]["simulated"]:
            print_note("note: the images are simulated; do not draw conclusions about real images")


@dataclass(frozen=True)
class ComparisonResult(EvaluationResult):
    """Result of `evaluate knn` and `evaluate probe`."""

    def tables(self) -> Iterator[str]:
        """Yield the table of the primary metric of each method and setting."""
        metric = self.record["primary_metric"]
        names = {each["key"]: each["name"] for each in self.record["methods"]}
        settings = list(dict.fromkeys(row["setting"] for row in self.record["summary"]))
        cells = {
            (row["method"], row["setting"]): _mean_sd(
                row[metric], row["interval"] if row["setting"] == settings[-1] else None
            )
            for row in self.record["summary"]
        }
        rows = [[names[key], *(cells[key, setting] for setting in settings)] for key in names]
        yield text_table([metric, *settings], rows)


@dataclass(frozen=True)
class RetrievalResult(EvaluationResult):
    """Result of `evaluate retrieval`."""

    def tables(self) -> Iterator[str]:
        """Yield a table of all metrics for each setting; the second only if it differs."""
        metrics, names = self.record["metrics"], {each["key"]: each["name"] for each in self.record["methods"]}
        shown: list[list[list[str]]] = []
        for setting in dict.fromkeys(row["setting"] for row in self.record["summary"]):
            rows = [
                [
                    names[row["method"]],
                    *(format_mean(row[name], name == self.record["primary_metric"]) for name in metrics),
                ]
                for row in self.record["summary"]
                if row["setting"] == setting
            ]
            if rows not in shown:
                shown.append(rows)
                yield text_table([f"ranked: {setting}", *metrics], rows)


@dataclass(frozen=True)
class RobustnessResult(EvaluationResult):
    """Result of `evaluate robustness`."""

    def tables(self) -> Iterator[str]:
        """Yield the table of the tolerance of each method and family of changes."""
        names = {each["key"]: each["name"] for each in self.record["methods"] if each["key"] != "chance"}
        titles = {each["family"]: each["title"] for each in self.record["families"]}
        cells = {(row["method"], row["family"]): row["text"] for row in self.record["tolerance"]}
        ordered = {row["family"] for row in self.record["tolerance"] if row["ordered"]}
        families = [name for name in titles if name in ordered]
        metric = self.record["primary_metric"]
        if families:
            rows = [[titles[name], *(cells[key, name] for key in names)] for name in families]
            loss = "5 points" if "accuracy" in metric else "0.05"
            yield text_table([f"{metric.replace('_', ' ')} within {loss} up to", *names.values()], rows)
        if effects := self.record["column_effects"]:
            by_column: dict[str, dict[str, str]] = {}
            for row in effects:
                by_column.setdefault(row["family"], {})[row["method"]] = _effect(row)
            measured = list(dict.fromkeys(row["method"] for row in effects))
            lines = [[column, *(found[key] for key in measured)] for column, found in by_column.items()]
            yield text_table(["effect on embeddings (* called)", *(names[key] for key in measured)], lines)


def _effect(row: Mapping[str, Any]) -> str:
    """Format the size of an effect with its interval."""
    if row["size"] is None or math.isnan(row["size"]):
        return "–"
    return f"{row['size']:.2f}{'*' if row['called'] else ''} ({row['low']:.2f} to {row['high']:.2f})"


@dataclass(frozen=True)
class MaskResult(EvaluationResult):
    """Result of `evaluate segmentation`."""

    def tables(self) -> Iterator[str]:
        """Yield the tables of the means of each method, and of the IoU of each class."""
        scores = self.record["summary"]
        means = {(row["method"], row["metric"]): row for row in scores if row["class"] == ALL}
        names = [name for name in dict.fromkeys(name for _, name in means) if name != "sq"]
        yield self._table("mean", names, {key: format_mean(row, key[1] == names[0]) for key, row in means.items()})
        of_class = {(row["method"], row["class"]): row for row in scores if row["metric"] == names[0]}
        classes = [name for name in dict.fromkeys(name for _, name in of_class) if name not in (ALL, BACKGROUND)]
        if len(classes) > 1:
            yield self._table(names[0], classes, {key: format_mean(row, False) for key, row in of_class.items()})

    def _table(self, title: str, columns: Sequence[str], cells: dict[tuple[str, str], str]) -> str:
        """Format one table with a row for each method."""
        rows = [[each["name"], *(cells[each["key"], name] for name in columns)] for each in self.record["methods"]]
        return text_table([title, *columns], rows)


@dataclass(frozen=True)
class WeightsResult(ReportResult):
    """Result of `evaluate weights`."""

    def tables(self) -> Iterator[str]:
        """Yield a table with a row for each pair of models, and a line for each pair without result."""
        rows = [
            [f"{each['first']} – {each['second']}", str(each["tensors"])]
            + [
                "–" if each[name] is None else format(each[name][key], digits)
                for name in METRICS
                for key, digits in (("mean", ".3g"), ("area_below_curve", ".4f"))
            ]
            for each in self.record["pairs"]
        ]
        header = ["pair", "tensors", *(f"{name}{word}" for name in METRICS for word in ("", ", area"))]
        yield text_table(header, rows)
        for each in self.record["pairs"]:
            if not each["tensors"]:
                yield f"{each['first']} – {each['second']}: not compared, no tensor has the same name and shape"


def format_mean(row: dict[str, Any], with_interval: bool) -> str:
    """Format a mean, optionally with its confidence interval."""
    if row["mean"] is None:
        return "–"
    ends = f" ({row['low']:.3f} to {row['high']:.3f})" if with_interval and row["low"] is not None else ""
    return f"{row['mean']:.3f}{ends}"


def _mean_sd(row: dict[str, Any], interval: list[float] | None) -> str:
    """Format mean and standard deviation, optionally with a confidence interval."""
    text = f"{row['mean']:.3f}" + ("" if row["sd"] is None else f" ± {row['sd']:.3f}")
    return text if interval is None else f"{text} ({interval[0]:.3f} to {interval[1]:.3f})"
