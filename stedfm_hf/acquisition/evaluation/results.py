"""Results of `evaluate find`: what the report shows, and what the command prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.evaluation.report.content import UNKNOWN_SOURCES, ClassSummaries, MethodInfo
from stedfm_hf.evaluation.results import EvaluationResult, format_mean
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.metrics.summary import ALL
from stedfm_hf.runs.wording import text_table

CURVES = pa.schema(
    [(name, pa.string()) for name in ("method", "class", "level")]
    + [("recall", pa.float64()), ("precision", pa.float64()), ("images", pa.int64())]
)
"""Columns of `curves.parquet`."""
SUMMARY = ("method", "metric", "class", "mean", "low", "high", "median", "sd", "images", "undefined", "sources")
"""Columns of `summary.csv`, where `metric` is the level."""


@dataclass(frozen=True)
class ShownRegion:
    """Region of an example.

    Attributes:
        box: Rectangle, in pixels.
        found: Number of annotated objects that it shows, and that no better region does.
    """

    box: Box
    found: int


@dataclass(frozen=True, eq=False)
class Example:
    """Image with its annotation and its score maps.

    Attributes:
        image_id: Image id.
        title: Title of the row, such as "best".
        class_name: Name of the class that is shown, that with the lowest average precision.
        mean_precision: Average precision of the first method, mean over the classes of the image.
        class_precision: Average precision of the first method for the class that is shown.
        image: Scaled image (H, W).
        truth: Mask of the class (H, W) bool.
        maps: Score maps (H, W) by key of the method.
        regions: Regions of the first method, the highest score first.
        pixel_size_nm: Pixel size in nm, if known.
    """

    image_id: str
    title: str
    class_name: str
    mean_precision: float
    class_precision: float
    image: np.ndarray
    truth: np.ndarray
    maps: Mapping[str, np.ndarray]
    regions: Sequence[ShownRegion]
    pixel_size_nm: float | None


@dataclass(frozen=True, eq=False)
class FindReport(ClassSummaries):
    """Results of `evaluate find`.

    Attributes:
        data: Scored images, without failed ones.
        split_description: Description of the split, in sentences.
        folds: Number of folds.
        classes: Names of the classes.
        levels: What is ranked, the level that is reported first at the start.
        methods: Models, then baselines.
        summary: Rows of `summarise`, with the key of the method; `metric` is the level.
        pooled: Average precision over all images together, for each method, level and class.
        curves: Rows of `curves.parquet`.
        per_image: Rows of `per_image.parquet`.
        comparisons: Rows of `compare_methods`.
        facts: Number of images, fractions and number of objects of each class.
        limitations: Reasons why no conclusion can be drawn, if there are any.
        notes: Notes on the training of the models, in sentences.
        examples: Images to show.
        settings: Settings that determine the result, as JSON data.
        region_size: Height and width of a region, in pixels.
        failed: Reason why an image failed, by its image id.
        seconds: Duration of fitting and scoring, in seconds.
    """

    data: AnnotatedImages
    split_description: str
    folds: int
    classes: Sequence[str]
    levels: Sequence[str]
    methods: Sequence[MethodInfo]
    summary: Sequence[dict[str, Any]]
    pooled: Sequence[dict[str, Any]]
    curves: Sequence[dict[str, Any]]
    per_image: pa.Table
    comparisons: Sequence[dict[str, Any]]
    facts: Sequence[dict[str, Any]]
    limitations: Sequence[str]
    notes: Sequence[str]
    examples: Sequence[Example]
    settings: Mapping[str, Any]
    region_size: float
    failed: Mapping[str, str]
    seconds: float

    @property
    def reference(self) -> bool:
        """Whether the protocol is that of the published code."""
        return self.settings.get("protocol") == "reference"

    def all_notes(self) -> list[str]:
        """Return notes on the data, in sentences."""
        return [*self.notes, *([UNKNOWN_SOURCES] if self.data.sources_unknown else [])]

    def record(self) -> dict[str, Any]:
        """Return all results as JSON data."""
        return {
            "command": "evaluate find",
            "data": {
                "name": self.data.name,
                "classes": list(self.classes),
                "simulated": self.data.simulated,
                "images": len(self.data),
                "sources": self.data.source_count,
                "images_without_mask": list(self.data.without_mask),
                "failed": dict(self.failed),
                "facts": list(self.facts),
            },
            "protocol": self.settings.get("protocol"),
            "split": self.split_description,
            "folds": self.folds,
            "region_size_px": self.region_size,
            "levels": list(self.levels),
            "conclusion": {"possible": not self.limitations, "limitations": list(self.limitations)},
            "notes": self.all_notes(),
            "methods": [asdict(each) for each in self.methods],
            "summary": list(self.summary),
            "pooled": list(self.pooled),
            "comparisons": list(self.comparisons),
            "settings": dict(self.settings),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class FindEvaluation(EvaluationResult):
    """Result of `evaluate find`."""

    def tables(self) -> Iterator[str]:
        """Yield the table of the mean average precision of each method."""
        rows = {(row["method"], row["metric"]): row for row in self.record["summary"] if row["class"] == ALL}
        levels = self.record["levels"]
        cells = [
            [each["name"], *(format_mean(rows[each["key"], level], level == levels[0]) for level in levels)]
            for each in self.record["methods"]
        ]
        yield text_table(["average precision", *levels], cells)
