"""All that a report tells of an evaluation of segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stedfm_hf.evaluation.report.shared import Contestant
from stedfm_hf.evaluation.segmentation.scored import Scored, Scoring
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.metrics.summary import ALL

PRIMARY = "iou"
"""The score that is told first, and that methods are compared by."""


@dataclass(frozen=True, eq=False)
class Example:
    """An image to look at.

    Args:
        place: its name in the data set.
        word: why it is shown: best, median or worst.
        score: its mean IoU over the classes, of the first method.
        image: (H, W) in [0, 1].
        truth: planes of the classes that are shown (L, H, W) bool.
        predicted: the same of every method that is shown, by its name.
        region: where the annotation counts (H, W) bool; None: everywhere.
        pixel_size_nm: side of a pixel, if it is known.
    """

    place: str
    word: str
    score: float
    image: np.ndarray
    truth: np.ndarray
    predicted: Mapping[str, np.ndarray]
    region: np.ndarray | None
    pixel_size_nm: float | None


@dataclass(frozen=True, eq=False)
class Findings:
    """A finished evaluation of segmentation.

    Args:
        test: the images that were scored, without those that failed.
        split: what they are of.
        how: how they were chosen, in words.
        splits: images, sources and pixels of what was scored and learned from.
        contestants: models first, then baselines.
        scores: of every method, of all images in one order.
        scoring: the rules.
        threshold: of a predicted pixel.
        summary: means of every method, see :func:`~stedfm_hf.metrics.summary.summarise`.
        objects: of all images together, see :func:`~stedfm_hf.metrics.summary.pool_objects`.
        comparisons: see :func:`~stedfm_hf.evaluation.segmentation.scored.compare`.
        limitations: why no conclusion can be drawn; empty where one can.
        warnings: what the annotated images lack.
        notes: what a reader must know of how the figures came about.
        examples: images to look at.
        settings: that decide the result, plain data.
        failed: images that were left out, with the reason.
        seconds: of segmenting and of the rest.
    """

    test: AnnotatedImages
    split: str
    how: str
    splits: Mapping[str, Any]
    contestants: Sequence[Contestant]
    scores: Mapping[str, Sequence[Scored]]
    scoring: Scoring
    threshold: float
    summary: Sequence[dict[str, Any]]
    objects: Sequence[dict[str, Any]]
    comparisons: Sequence[dict[str, Any]]
    limitations: Sequence[str]
    warnings: Sequence[str]
    notes: Sequence[str]
    examples: Sequence[Example]
    settings: Mapping[str, Any]
    failed: Mapping[str, str]
    seconds: Mapping[str, float]

    @property
    def command(self) -> str:
        """The command."""
        return "evaluate segmentation"

    @property
    def shown_classes(self) -> list[str]:
        """The classes that are no background."""
        return [name for number, name in enumerate(self.test.classes) if number != self.test.background]

    @property
    def metric_names(self) -> list[str]:
        """Names of the scores, in the order of the tables."""
        return list(dict.fromkeys(row["metric"] for row in self.summary))

    def name(self, key: str) -> str:
        """The name of a method."""
        return next(each.name for each in self.contestants if each.key == key)

    def row(self, method: str, score: str, each_class: str = ALL) -> dict[str, Any]:
        """The summary of a method."""
        wanted = (method, score, each_class)
        return next(row for row in self.summary if (row["method"], row["metric"], row["class"]) == wanted)

    @property
    def lead(self) -> Contestant:
        """The one that is told first: the first model; of baselines alone the best."""
        first, best = self.contestants[0], self.best_baseline()
        if first.kind == "model" or best is None:
            return first
        return next(each for each in self.contestants if each.key == best)

    def best_baseline(self) -> str | None:
        """Key of the baseline with the highest mean, guessing left out; None where there is none with a score."""
        found = {
            each.key: self.row(each.key, PRIMARY)["mean"]
            for each in self.contestants
            if each.kind == "baseline" and each.key not in ("constant", "chance")
        }
        known = {key: mean for key, mean in found.items() if mean is not None}
        return max(known, key=lambda key: known[key]) if known else None

    def record(self) -> dict[str, Any]:
        """All figures as plain data."""
        return {
            "command": self.command,
            "data": {
                "name": self.test.name,
                "target_type": self.test.target_type,
                "classes": list(self.test.classes),
                "excluded_from_means": [name for name in self.test.classes if name not in self.shown_classes],
                "simulated": self.test.simulated,
                "images_without_mask": list(self.test.unmasked),
                "failed": dict(self.failed),
            },
            "split": {"name": self.split, "description": self.how, "splits": dict(self.splits)},
            "protocol": {
                "name": self.scoring.protocol,
                "threshold": None if self.test.target_type == "single_label" else self.threshold,
                "min_area_px": self.scoring.min_area_px,
            },
            "conclusion": {"possible": not self.limitations, "limitations": list(self.limitations)},
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "methods": [asdict(each) for each in self.contestants],
            "summary": list(self.summary),
            "pooled_objects": list(self.objects),
            "comparisons": list(self.comparisons),
            "settings": dict(self.settings),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }
