"""Content of a report of `evaluate robustness`, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from stedfm_hf.evaluation.report.content import ComparisonReport, MethodInfo, Methods
from stedfm_hf.evaluation.robustness.curves import Curve, tolerance
from stedfm_hf.evaluation.robustness.families import Family
from stedfm_hf.images import StedImage
from stedfm_hf.labels.labelled import LabelledImages

FILES = (
    "accuracy.parquet",
    "tolerance.parquet",
    "effects.parquet",
    "scores.parquet",
    "readout.parquet",
    "batches.parquet",
    "new_batches.parquet",
    "figures",
)
"""Files of the report, except `results.json` and `report.html`."""


@dataclass(eq=False)
class Measured:
    """Rows on the embeddings and on real batches.

    Attributes:
        effects: Rows of `change_effects`.
        scores: Rows of `change_scores`.
        readout: Rows of `readout`.
        column_effects: Effect of each column of real batches.
        column_scores: Representation scores of each column.
        batches: Rows of `batch_accuracy`.
        new_batches: Rows of `leave_one_batch_out`.
    """

    effects: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    readout: list[dict[str, Any]] = field(default_factory=list)
    column_effects: list[dict[str, Any]] = field(default_factory=list)
    column_scores: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    new_batches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of real batches."""
        return list(dict.fromkeys(row["column"] for row in self.batches))


@dataclass(frozen=True, eq=False, kw_only=True)
class Robustness(Methods, ComparisonReport[LabelledImages]):
    """Results of `evaluate robustness`; see `ComparisonReport` for the other fields.

    Attributes:
        families: Families of changes.
        metric: Metric of the curves.
        curves: Score of each method over the levels of each family.
        chance: Score of a constant prediction.
        measured: Rows on the embeddings and on real batches.
        examples: One test image at all levels, by family.
    """

    families: Sequence[Family]
    metric: str
    curves: Sequence[Curve]
    chance: float
    measured: Measured
    examples: Mapping[str, Sequence[StedImage]] = field(repr=False)

    @property
    def main(self) -> MethodInfo:
        """Method that is reported first: the first model."""
        return self.methods[0]

    def curve(self, method: str, family: str) -> Curve:
        """Return the curve of a method and family.

        Args:
            method: Key of the method.
            family: Name of the family.
        """
        return next(each for each in self.curves if (each.method, each.family.name) == (method, family))

    @cached_property
    def accuracy(self) -> list[dict[str, Any]]:
        """Row for each method, family and level."""
        return [row for curve in self.curves for row in curve.rows()]

    @cached_property
    def tolerances(self) -> list[dict[str, Any]]:
        """Row for each method and family."""
        rows = []
        for curve in self.curves:
            row = tolerance(curve, self.chance)
            rows.append(row | {"ordered": curve.family.ordered, "text": tolerance_text(row, curve.family)})
        return rows

    def tolerance(self, method: str, family: str) -> dict[str, Any]:
        """Return the tolerance of a method and family.

        Args:
            method: Key of the method.
            family: Name of the family.
        """
        return next(row for row in self.tolerances if (row["method"], row["family"]) == (method, family))

    @cached_property
    def ranking(self) -> list[dict[str, Any]]:
        """Row for each family with the mean loss of the first method over the changed levels, from the largest.

        `standardise` is whether the 95 % interval of the loss excludes 0.
        """
        rows = []
        for family in self.families:
            loss, ends = self.curve(self.main.key, family.name).mean_loss()
            rows.append(
                {
                    "family": family.name,
                    "setting": family.setting,
                    "mean_loss": loss,
                    "low": None if ends is None else ends[0],
                    "high": None if ends is None else ends[1],
                    "standardise": ends is not None and ends[0] > 0,
                }
            )
        return sorted(rows, key=lambda row: -row["mean_loss"])

    def data_record(self) -> dict[str, Any]:
        """Return facts on the images as JSON data."""
        return {"task": self.test.task, "classes": list(self.test.classes), "simulated": self.test.simulated}

    def results(self) -> dict[str, Any]:
        """Return the metrics as JSON data."""
        return {
            "primary_metric": self.metric,
            "chance": self.chance,
            "families": [
                {
                    "family": family.name,
                    "title": family.title,
                    "unit": family.unit,
                    "levels": [family.label(level) for level in family.levels],
                }
                for family in self.families
            ],
            "accuracy": self.accuracy,
            "tolerance": self.tolerances,
            "ranking": self.ranking,
            **asdict(self.measured),
        }

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables of the report by file name."""
        measured = self.measured
        rows = {
            "accuracy": self.accuracy,
            "tolerance": self.tolerances,
            "effects": [*measured.effects, *measured.column_effects],
            "scores": [*measured.scores, *measured.column_scores],
            "readout": measured.readout,
            "batches": measured.batches,
            "new_batches": measured.new_batches,
        }
        return {f"{name}.parquet": pa.Table.from_pylist(each) for name, each in rows.items() if each}


def tolerance_text(row: Mapping[str, Any], family: Family, end: str = "tolerance") -> str:
    """Return a tolerance, or an end of its interval, as text.

    Args:
        row: Row of `tolerance`.
        family: Family of the row.
        end: "tolerance", "low" or "high".

    Returns:
        The level with its unit; "<" or ">" and the last level if accuracy never leaves the tolerance; ">" and the
        first level if accuracy is lost at the first level below infinity; or a dash.
    """
    beyond = row["beyond" if end == "tolerance" else f"{end}_beyond"]
    if beyond:
        return f"{'<' if family.decreasing else '>'} {family.label(row['last'])}"
    if row[end] is None:
        return "–"
    lost_at_first = family.decreasing and row[end] >= family.levels[1]
    return f"{'> ' if lost_at_first else ''}{row[end]:.3g} {family.unit}"
