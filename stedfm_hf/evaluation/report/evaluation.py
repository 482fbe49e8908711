"""Content of a report of `evaluate knn` or `evaluate probe`, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.evaluation.report.content import ComparisonReport, SettingSummaries
from stedfm_hf.evaluation.scoring import METRICS, PRIMARY, Run
from stedfm_hf.labels.labelled import LabelledImages


def short_setting(setting: str) -> str:
    """Shorten a setting for axes and columns.

    Args:
        setting: Setting of a run.

    Example:
        >>> short_setting("20 neighbours, weighted (T = 0.07)"), short_setting("1 neighbour"), short_setting("all")
        ('20, weighted', '1', 'all')
    """
    vote, weighted = (part.strip() for part in (setting.partition(",")[0], setting.partition(",")[2]))
    number = vote.removesuffix("s").removesuffix(" neighbour")
    return f"{number}, weighted" if weighted.startswith("weighted") else number if number.isdecimal() else setting


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation(SettingSummaries, ComparisonReport[LabelledImages]):
    """Results of `evaluate knn` or `evaluate probe`; see `ComparisonReport` for the other fields.

    Attributes:
        runs: All runs.
        summary: Rows of `summarise`.
        comparisons: Rows of `compare`.
    """

    runs: Sequence[Run]
    summary: Sequence[dict[str, Any]]
    comparisons: Sequence[dict[str, Any]]

    @property
    def unlabelled(self) -> int:
        """Number of images excluded because they have no label."""
        return len({image_id for images in self.splits.named().values() for image_id in images.unlabelled})

    @property
    def primary(self) -> str:
        """Metric with confidence intervals."""
        return PRIMARY[self.test.task]

    @property
    def order(self) -> list[str]:
        """Settings, from few labels or neighbours to many."""
        return list(dict.fromkeys(run.setting for run in self.runs))

    @property
    def main_setting(self) -> str:
        """Setting reported first: all labels, or the largest number of neighbours with fair votes."""
        too_large = self.too_large_ks()
        if not too_large:
            return self.order[-1]
        fair = [number for number, k in enumerate(self.settings["k"]) if k not in too_large]
        return self.order[fair[-1] if fair else 0]

    def too_large_ks(self) -> list[int]:
        """Return the values of k above half the size of the smallest class, which larger classes can then outvote."""
        if self.settings.get("protocol") != "default" or "k" not in self.settings:
            return []
        smallest = min(self.splits.train.counts().values()) - self.splits.leave_one_out
        return [k for k in self.settings["k"] if 2 * k > smallest and k > 1]

    def notes(self) -> list[str]:
        """Return notes on the protocol and its limitations, one or two sentences each."""
        notes = super().notes()
        if too_large := self.too_large_ks():
            counts = self.splits.train.counts()
            label = min(counts, key=lambda name: counts[name])
            others = ", and each image is compared with the others only" if self.splits.leave_one_out else ""
            notes.append(
                f"The smallest class, {label}, has {counts[label]} images{others}. With k = "
                f"{' or '.join(map(str, too_large))}, larger classes can outvote it even with perfect embeddings, and "
                "scores can be below chance. Interpret smaller values of k only."
            )
        return notes

    def data_record(self) -> dict[str, Any]:
        """Return facts on the images as JSON data."""
        return {
            "task": self.test.task,
            "classes": list(self.test.classes),
            "simulated": self.test.simulated,
            "unlabelled_images": self.unlabelled,
        }

    def results(self) -> dict[str, Any]:
        """Return the metrics as JSON data."""
        return {
            "primary_metric": self.primary,
            "summary": list(self.summary),
            "comparisons": list(self.comparisons),
        }

    def results_table(self) -> pa.Table:
        """Return a table with one row for each run and all metrics."""
        scalars = [name for name in METRICS[self.test.task] if any(name in run.metrics for run in self.runs)]
        columns: dict[str, Any] = {
            "method": [run.method for run in self.runs],
            "name": [self.name(run.method) for run in self.runs],
            "setting": [run.setting for run in self.runs],
            "seed": [run.seed for run in self.runs],
            "train_images": [run.train_images for run in self.runs],
            "C": pa.array([run.C for run in self.runs], pa.float64()),
            "C_selected_on": pa.array([run.selected_on for run in self.runs], pa.string()),
        }
        columns |= {name: pa.array([run.metrics.get(name) for run in self.runs], pa.float64()) for name in scalars}
        for name in ("recall_per_class", "f1_per_class", "average_precision_per_class"):
            if any(name in run.metrics for run in self.runs):
                values = [run.metrics.get(name) for run in self.runs]
                columns[name] = pa.array(values, pa.list_(pa.float64()))
        if any("confusion_matrix" in run.metrics for run in self.runs):
            matrices = [run.metrics.get("confusion_matrix") for run in self.runs]
            columns["confusion_matrix"] = pa.array(matrices, pa.list_(pa.list_(pa.int64())))
        return pa.table(columns)

    def predictions_table(self) -> pa.Table:
        """Return a table with one row for each run and test image, run by run.

        Labels and predictions are class names, lists of names if multilabel, or numbers for a regression. The
        prediction is an empty string where the reference protocol makes none. Probabilities are included if all runs
        have them.
        """
        test, count = self.test, len(self.test)
        names = np.array(["", *test.classes], dtype=object)

        def to_names(values: np.ndarray) -> Any:
            """Convert class numbers (n,), or 0 and 1 per class (n, C), to names; keep the numbers of a regression."""
            if test.task == "regression":
                return values.astype(np.float64)
            if test.task == "multilabel":
                return [[test.classes[number] for number in np.flatnonzero(row)] for row in values]
            return names[values + 1]  # -1, no prediction, gives the empty name

        table: dict[str, Any] = {
            "method": np.repeat([run.method for run in self.runs], count),
            "setting": np.repeat([run.setting for run in self.runs], count),
            "seed": np.repeat([run.seed for run in self.runs], count),
            "image_id": np.tile(test.image_ids, len(self.runs)),
            "source": np.tile(test.sources, len(self.runs)),
            "label": list(to_names(test.labels)) * len(self.runs),
            "prediction": [value for run in self.runs for value in to_names(run.predicted)],
        }
        if all(run.probabilities is not None for run in self.runs):
            rows = [row for run in self.runs for row in np.asarray(run.probabilities, np.float32)]
            table["probabilities"] = pa.array(rows, pa.list_(pa.float32()))
        return pa.table(table)
