"""All that a report tells of an evaluation, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.evaluation.report.shared import Contestant
from stedfm_hf.evaluation.scoring import PRIMARY, SHOWN, Run
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.splits import Splits, limitations_of


def in_short(setting: str) -> str:
    """A setting in few words, for axes and columns.

    Example:
        >>> in_short("20 neighbours, weighted (T = 0.07)"), in_short("1 neighbour"), in_short("all")
        ('20, weighted', '1', 'all')
    """
    vote, weighted = (part.strip() for part in (setting.partition(",")[0], setting.partition(",")[2]))
    number = vote.removesuffix("s").removesuffix(" neighbour")
    return f"{number}, weighted" if weighted.startswith("weighted") else number if number.isdecimal() else setting


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A finished evaluation.

    Args:
        command: evaluate probe or evaluate knn.
        splits: what was learned from and tested on.
        training: what is known of the images that the models were trained on, a sentence each.
        contestants: models first, then baselines.
        runs: all runs.
        summary: of every model in every setting, see :func:`~stedfm_hf.evaluation.scoring.summarise`.
        comparisons: see :func:`~stedfm_hf.evaluation.scoring.compare`.
        settings: that decide the result, plain data.
        failed: images that could not be read, with the reason.
        seconds: embedding and the rest.
    """

    command: str
    splits: Splits[LabelledImages]
    training: Sequence[str]
    contestants: Sequence[Contestant]
    runs: Sequence[Run]
    summary: Sequence[dict[str, Any]]
    comparisons: Sequence[dict[str, Any]]
    settings: Mapping[str, Any]
    failed: Mapping[str, str]
    seconds: Mapping[str, float]

    @property
    def test(self) -> LabelledImages:
        """What was tested on."""
        return self.splits.test

    @property
    def unlabelled(self) -> int:
        """How many images were left out because they have no label."""
        return len({place for images in self.splits.named().values() for place in images.unlabelled})

    @property
    def primary(self) -> str:
        """The metric that intervals are of."""
        return PRIMARY[self.test.task]

    @property
    def order(self) -> list[str]:
        """The settings, from few labels to all."""
        return list(dict.fromkeys(run.setting for run in self.runs))

    @property
    def main_setting(self) -> str:
        """The one that is told first: all labels, or the most neighbours that outvote no class."""
        outvoted = self.outvoted()
        if not outvoted:
            return self.order[-1]
        good = [place for place, k in enumerate(self.settings["k"]) if k not in outvoted]
        return self.order[good[-1] if good else 0]

    def outvoted(self) -> list[int]:
        """Numbers of neighbours above half of what the smallest class has: whatever the vectors, it loses votes."""
        if self.settings.get("protocol") != "default" or "k" not in self.settings:
            return []
        least = min(self.splits.train.counts().values()) - self.splits.leave_one_out
        return [k for k in self.settings["k"] if 2 * k > least and k > 1]

    def notes(self) -> list[str]:
        """What a reader must know of how the figures came about, a sentence or two each."""
        found = [self.splits.how, *self.training]
        if all(data.are_own_sources for data in self.splits.named().values()):
            found.append(
                "Every image counts as a source of its own. If several were cut from one field of view, or are of one "
                "sample, give their sources: otherwise scores come out too high, and intervals too narrow."
            )
        if many := self.outvoted():
            counts = self.splits.train.counts()
            label = min(counts, key=lambda name: counts[name])
            alone = ", and none asks itself" if self.splits.leave_one_out else ""
            found.append(
                f"The smallest class, {label}, has {counts[label]} images{alone}: where {' or '.join(map(str, many))} "
                "neighbours vote, others outvote it however good the vectors are, and scores can fall below guessing. "
                "Look at fewer neighbours."
            )
        return found

    def name(self, key: str) -> str:
        """The name of a model."""
        return next(each.name for each in self.contestants if each.key == key)

    def row(self, method: str, setting: str) -> dict[str, Any]:
        """Return the summary of a method in a setting."""
        return next(row for row in self.summary if (row["method"], row["setting"]) == (method, setting))

    def record(self) -> dict[str, Any]:
        """All figures as plain data."""
        limitations = limitations_of(self.test)
        return {
            "command": self.command,
            "data": {
                "name": self.test.name,
                "task": self.test.task,
                "classes": list(self.test.classes),
                "simulated": self.test.simulated,
                "unlabelled_images": self.unlabelled,
                "failed": dict(self.failed),
            },
            "split": {"description": self.splits.how, "splits": self.splits.facts()},
            "conclusion": {"possible": not limitations, "limitations": limitations},
            "methods": [asdict(each) for each in self.contestants],
            "notes": self.notes(),
            "primary_metric": self.primary,
            "summary": list(self.summary),
            "comparisons": list(self.comparisons),
            "settings": dict(self.settings),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }

    def results_table(self) -> pa.Table:
        """One row for each run, with all metrics."""
        scalars = [name for name in SHOWN[self.test.task] if any(name in run.metrics for run in self.runs)]
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
        """One row for each run and image of the test."""
        test, count = self.test, len(self.test)
        names = np.array(["", *test.classes], dtype=object)

        def shown(values: np.ndarray) -> Any:
            if test.task == "regression":
                return values.astype(np.float64)
            if test.task == "multilabel":
                return [[test.classes[number] for number in np.flatnonzero(row)] for row in values]
            return names[values + 1]

        table: dict[str, Any] = {
            "method": np.repeat([run.method for run in self.runs], count),
            "setting": np.repeat([run.setting for run in self.runs], count),
            "seed": np.repeat([run.seed for run in self.runs], count),
            "image_id": np.tile(test.image_ids, len(self.runs)),
            "source": np.tile(test.sources, len(self.runs)),
            "label": list(shown(test.labels)) * len(self.runs),
            "prediction": [value for run in self.runs for value in shown(run.predicted)],
        }
        if all(run.probabilities is not None for run in self.runs):
            rows = [row for run in self.runs for row in np.asarray(run.probabilities, np.float32)]
            table["probabilities"] = pa.array(rows, pa.list_(pa.float32()))
        return pa.table(table)
