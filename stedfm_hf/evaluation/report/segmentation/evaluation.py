"""Content of a report of `evaluate segmentation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stedfm_hf.evaluation.report.content import ClassSummaries, MethodInfo
from stedfm_hf.evaluation.segmentation.scores import ScoredImage, Scorer
from stedfm_hf.labels.annotated import AnnotatedImages

PRIMARY = "iou"
"""Metric reported first, by which methods are compared."""


@dataclass(frozen=True, eq=False)
class Example:
    """Image with its annotation and predictions.

    Attributes:
        image_id: Image id.
        title: Title of the row, such as "best".
        score: Mean IoU over classes of the first method, in [0, 1].
        image: Scaled image (H, W) in [0, 1].
        truth: Annotation of the shown classes (L, H, W) bool.
        predicted: Predicted pixels (L, H, W) bool, by name of the method.
        region: Mask of the scored pixels (H, W) bool; None if all pixels are scored.
        pixel_size_nm: Pixel size in nm, if known.
    """

    image_id: str
    title: str
    score: float
    image: np.ndarray
    truth: np.ndarray
    predicted: Mapping[str, np.ndarray]
    region: np.ndarray | None
    pixel_size_nm: float | None


@dataclass(frozen=True, eq=False)
class SegmentationEvaluation(ClassSummaries):
    """Results of `evaluate segmentation`.

    Attributes:
        test: Scored images, without failed ones.
        split: Name of the scored split.
        split_description: Description of the splits, in sentences.
        splits: Numbers of images, source images and pixels, by split.
        methods: Models, zero-shot masks, then baselines.
        scores: Scores of all images in the order of `test`, by key of the method.
        scorer: Scoring protocol.
        threshold: Probability above which a pixel is predicted.
        summary: Rows of `summarise`, with the key of the method.
        objects: Rows of `pool_objects`, with the key of the method.
        comparisons: Rows of `compare`.
        limitations: Reasons why no conclusion can be drawn, if there are any.
        warnings: Classes that the annotated images lack, in sentences.
        notes: Notes on the protocol, in sentences.
        examples: Images to show.
        settings: Settings that determine the result, as JSON data.
        failed: Reason why an image failed, by its image id.
        seconds: Duration of each step, in seconds.
    """

    test: AnnotatedImages
    split: str
    split_description: str
    splits: Mapping[str, Any]
    methods: Sequence[MethodInfo]
    scores: Mapping[str, Sequence[ScoredImage]]
    scorer: Scorer
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
        """Name of the command."""
        return "evaluate segmentation"

    @property
    def shown_classes(self) -> list[str]:
        """Classes without the background."""
        return [name for number, name in enumerate(self.test.classes) if number != self.test.background]

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics, in the order of the tables."""
        return list(dict.fromkeys(row["metric"] for row in self.summary))

    @property
    def main_method(self) -> MethodInfo:
        """Method reported first: the first model, or the best baseline without models."""
        first, best = self.methods[0], self.best_baseline()
        if first.kind != "baseline" or best is None:
            return first
        return next(each for each in self.methods if each.key == best)

    def best_baseline(self) -> str | None:
        """Return the key of the baseline with the highest mean, except guessing; None if there is none."""
        return self.best("baseline", PRIMARY, without=("constant", "chance"))

    def record(self) -> dict[str, Any]:
        """Return all results as JSON data."""
        return {
            "command": self.command,
            "data": {
                "name": self.test.name,
                "target_type": self.test.target_type,
                "classes": list(self.test.classes),
                "excluded_from_means": [name for name in self.test.classes if name not in self.shown_classes],
                "simulated": self.test.simulated,
                "images_without_mask": list(self.test.without_mask),
                "failed": dict(self.failed),
            },
            "split": {"name": self.split, "description": self.split_description, "splits": dict(self.splits)},
            "protocol": {
                "name": self.scorer.protocol,
                "threshold": None if self.test.target_type == "single_label" else self.threshold,
                "min_area_px": self.scorer.min_area_px,
            },
            "conclusion": {"possible": not self.limitations, "limitations": list(self.limitations)},
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "methods": [asdict(each) for each in self.methods],
            "summary": list(self.summary),
            "pooled_objects": list(self.objects),
            "comparisons": list(self.comparisons),
            "settings": dict(self.settings),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }
