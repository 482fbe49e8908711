"""What the contents of evaluation reports have in common: methods, their summaries, and the record of a comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal

from stedfm_hf.labels.splits import Images, Splits, limitations_of
from stedfm_hf.metrics.summary import ALL

UNKNOWN_SOURCES = (
    "Every image is treated as a separate source image. If several images are from one field of view or sample, set "
    "their sources (--source-pattern): otherwise scores are too high and intervals too narrow."
)
"""Note on images whose sources are not known."""


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


CHANCE = MethodInfo("chance", "Chance", "baseline", None)
"""Baseline that guesses."""


class Methods:
    """Methods, found by key."""

    methods: Sequence[MethodInfo]

    def name(self, key: str) -> str:
        """Return the name of a method.

        Args:
            key: Key of the method.
        """
        return next(each.name for each in self.methods if each.key == key)


class SettingSummaries(Methods):
    """Summaries and comparisons of methods, in one or more settings."""

    summary: Sequence[dict[str, Any]]
    comparisons: Sequence[dict[str, Any]]

    def row(self, method: str, setting: str) -> dict[str, Any]:
        """Return the summary of a method in a setting.

        Args:
            method: Key of the method.
            setting: Setting of the runs, or what is ranked.
        """
        return next(row for row in self.summary if (row["method"], row["setting"]) == (method, setting))

    def comparisons_of(self, method: str, setting: str) -> list[dict[str, Any]]:
        """Return the comparisons of a model in a setting with the others, except chance.

        Args:
            method: Key of the model.
            setting: Setting of the runs, or what is ranked.
        """
        return [
            row
            for row in self.comparisons
            if (row["model"], row["setting"]) == (method, setting) and row["other"] != CHANCE.key
        ]


class ClassSummaries(Methods):
    """Summaries of methods by metric and class."""

    summary: Sequence[dict[str, Any]]

    def row(self, method: str, metric: str, each_class: str = ALL) -> dict[str, Any]:
        """Return the summary of a metric and class for a method.

        Args:
            method: Key of the method.
            metric: Name of the metric.
            each_class: Name of the class; by default the mean over classes.
        """
        key = (method, metric, each_class)
        return next(row for row in self.summary if (row["method"], row["metric"], row["class"]) == key)

    def best(self, kind: str, metric: str, *, without: Sequence[str] = ()) -> str | None:
        """Return the key of the method with the highest mean; None if there is none.

        Args:
            kind: Kind of the method.
            metric: Name of the metric.
            without: Keys of methods to leave out.
        """
        means = {
            each.key: self.row(each.key, metric)["mean"]
            for each in self.methods
            if each.kind == kind and each.key not in without
        }
        known = {key: mean for key, mean in means.items() if mean is not None}
        return max(known, key=lambda key: known[key]) if known else None


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparisonReport(ABC, Generic[Images]):
    """Results of a comparison of models and baselines on images with labels.

    Attributes:
        command: Name of the command.
        settings: Settings that determine the result, as JSON data.
        failed: Reason why an image could not be read, by its image id.
        seconds: Duration of each step, in seconds.
        splits: Training, validation and test images.
        data_notes: Sentences on the images that the models were trained on, and on what is assumed of the test images.
        methods: Models, then baselines.
    """

    command: str
    settings: Mapping[str, Any]
    failed: Mapping[str, str]
    seconds: Mapping[str, float]
    splits: Splits[Images]
    data_notes: Sequence[str]
    methods: Sequence[MethodInfo]

    @property
    def test(self) -> Images:
        """Test images."""
        return self.splits.test

    def notes(self) -> list[str]:
        """Return notes on the protocol and its limitations, one or two sentences each."""
        notes = [self.splits.description, *self.data_notes]
        if all(data.sources_unknown for data in self.splits.named().values()):
            notes.append(UNKNOWN_SOURCES)
        return notes

    def record(self) -> dict[str, Any]:
        """Return all results as JSON data."""
        limitations = limitations_of(self.test)
        return {
            "command": self.command,
            "data": {"name": self.test.name, **self.data_record(), "failed": dict(self.failed)},
            "split": {"description": self.splits.description, "splits": self.splits.facts()},
            "conclusion": {"possible": not limitations, "limitations": limitations},
            "methods": [asdict(each) for each in self.methods],
            "notes": self.notes(),
            **self.results(),
            "settings": dict(self.settings),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }

    @abstractmethod
    def data_record(self) -> dict[str, Any]:
        """Return facts on the images as JSON data."""

    @abstractmethod
    def results(self) -> dict[str, Any]:
        """Return the metrics as JSON data."""
