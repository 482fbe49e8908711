"""Simulated embeddings, and the scores that scib-metrics computes for them.

scib-metrics replaces pandas by an older version, so it is not a dependency. To compute
tests/fixtures/scib_metrics.json again, install it in a separate environment, and run this file from the root of the
repository:

    python -m venv scib && scib/bin/pip install scib-metrics==0.5.10 && scib/bin/python tests/metrics/scib_reference.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).parents[1] / "fixtures" / "scib_metrics.json"


@dataclass(frozen=True)
class Case:
    """Simulated embeddings (n, d), their classes and batches (n,), and the number of neighbours."""

    name: str
    embeddings: np.ndarray
    labels: np.ndarray
    batches: np.ndarray
    k: int

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and cosine distances of the neighbours (n, k), the row itself first, without approximation."""
        unit = self.embeddings / np.linalg.norm(self.embeddings, axis=1, keepdims=True)
        distances = 1 - unit @ unit.T
        np.fill_diagonal(distances, -1)
        rows = np.argsort(distances, axis=1, kind="stable")[:, : self.k]
        return rows, np.maximum(np.take_along_axis(distances, rows, axis=1), 0)


def cases() -> Iterator[Case]:
    """Mixed batches, displaced batches, batches of different sizes and class mixes, and weak classes."""
    for name, displacement, separation, batch_sizes, k in (
        ("mixed", 0.0, 1.5, (60, 60), 25),
        ("displaced", 2.0, 1.5, (60, 60), 25),
        ("three unequal batches", 0.7, 1.0, (70, 30, 15), 25),
        ("weak classes, few neighbours", 0.5, 0.3, (50, 40), 10),
    ):
        rng = np.random.default_rng(len(name))
        batches = np.repeat(np.arange(len(batch_sizes)), batch_sizes)
        labels = np.concatenate([rng.choice(3, size, p=rng.dirichlet([3.0, 3.0, 3.0])) for size in batch_sizes])
        centres = separation * rng.normal(size=(3, 12))
        moves = displacement * rng.normal(size=(len(batch_sizes), 12))
        yield Case(name, centres[labels] + moves[batches] + rng.normal(size=(len(labels), 12)), labels, batches, k)


def scores_of_scib_metrics(case: Case) -> dict[str, Any]:
    """Scores by name; needs scib-metrics."""
    import scib_metrics  # type: ignore[import-not-found]  # installed in another environment
    from scib_metrics.nearest_neighbors import NeighborsResults  # type: ignore[import-not-found]  # see above

    rows, distances = case.neighbours()
    found = NeighborsResults(indices=rows, distances=distances)
    embeddings = case.embeddings.astype(np.float32)
    rate, statistic, p_values = scib_metrics.kbet(found, case.batches)
    values: dict[str, Any] = {
        "graph_connectivity": scib_metrics.graph_connectivity(found, case.labels),
        "kbet": rate,
        "kbet_statistic": np.mean(statistic),
        "kbet_p": np.mean(p_values),
        "kbet_per_label": scib_metrics.kbet_per_label(found, case.batches, case.labels),
        "lisi_batch": scib_metrics.ilisi_knn(found, case.batches),
        "lisi_label": scib_metrics.clisi_knn(found, case.labels),
        "silhouette_label": scib_metrics.silhouette_label(embeddings, case.labels, metric="cosine"),
        "silhouette_batch": scib_metrics.silhouette_batch(embeddings, case.labels, case.batches, metric="cosine"),
        "silhouette_label_euclidean": scib_metrics.silhouette_label(embeddings, case.labels),
        "silhouette_batch_euclidean": scib_metrics.silhouette_batch(embeddings, case.labels, case.batches),
    }
    lisi = {f"each_{kind}": scib_metrics.lisi_knn(found, getattr(case, kind)) for kind in ("batches", "labels")}
    return {name: round(float(value), 6) for name, value in values.items()} | {
        name: np.round(np.asarray(value, float), 5).tolist() for name, value in lisi.items()
    }


if __name__ == "__main__":
    from importlib.metadata import version

    record = {"scib_metrics": version("scib-metrics")} | {each.name: scores_of_scib_metrics(each) for each in cases()}
    PATH.write_text(json.dumps(record, indent=1).replace("\n   ", "") + "\n", "utf-8")
