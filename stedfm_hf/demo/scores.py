"""The accuracies of the demo, each beside what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.demo.material import Picture
from stedfm_hf.evaluation import (
    KnnResult,
    accuracy_difference,
    chance_accuracy,
    intensity_histograms,
    knn_accuracy,
    knn_leave_one_out,
    log_spectrum_pca,
    zscore_by,
)


@dataclass(frozen=True, eq=False)
class Score:
    """Accuracy of one method: its name for people, its key for machines, and the result."""

    name: str
    key: str
    result: KnnResult


@dataclass(frozen=True, eq=False)
class Scores:
    """All accuracies of a demo.

    Args:
        methods: the network first, then what it is compared with.
        chance: accuracy of always giving the most frequent label.
        labels: true label of every query.
        sources: source file of every query.
        gallery: number of gallery images.
        left_out: whether every image was compared with all others but those of its own file.
    """

    methods: tuple[Score, ...]
    chance: float
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    gallery: int
    left_out: bool

    def per_label(self) -> dict[str, float]:
        """Accuracy of the network for every label."""
        truth, correct = np.array(self.labels), self.methods[0].result.correct
        return {label: float(correct[truth == label].mean()) for label in dict.fromkeys(self.labels)}

    def gain(self, key: str) -> tuple[float, ...]:
        """How much more accurate the network is than another method, with the 95 % interval."""
        other = next(score for score in self.methods if score.key == key)
        return accuracy_difference(self.methods[0].result, other.result, self.sources)

    def verdict(self, key: str) -> str:
        """That gain in words."""
        _, low, high = self.gain(key)
        return "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"

    def to_json(self) -> dict[str, Any]:
        """All figures as plain data."""
        methods = {
            score.key: {"accuracy": score.result.accuracy, "low": score.result.low, "high": score.result.high}
            for score in self.methods
        }
        result = self.methods[0].result
        gains = {
            score.key: dict(zip(("gain", "low", "high"), self.gain(score.key), strict=True))
            for score in self.methods[1:]
        }
        return {
            "k": result.k,
            "queries": result.images,
            "sources": result.sources,
            "gallery": self.gallery,
            "leave_one_source_out": self.left_out,
            "interval": "95 %",
            "methods": methods,
            "chance": self.chance,
            "network_over": gains,
            "per_label": self.per_label(),
        }


def score(
    pictures: Sequence[Picture],
    vectors: np.ndarray,
    untrained: np.ndarray,
    *,
    window: int,
    network: str,
    k: int = 10,
) -> Scores | None:
    """Scores the network and its controls on labelled pictures.

    Simulated pictures have a gallery and queries from other fields; one's own are compared with all others but those
    of the same file. Network vectors and histograms are z-scored by the gallery; components of spectra are not, as
    that would lift their noise.

    Args:
        pictures: the images, in the order of the vectors.
        vectors: of the network (n, D).
        untrained: of the untrained network (n, D).
        window: side of the windows of the spectrum, in pixels: the network's own tile.
        network: what to call the network.
        k: neighbours that vote, fewer where a class is smaller.

    Returns:
        The scores, or None where the pictures have no labels.
    """
    labels = [picture.label for picture in pictures if picture.label is not None]
    if len(labels) < len(pictures) or not pictures:
        return None
    query = np.array([picture.part == "query" for picture in pictures])
    split = bool(query.any() and not query.all())
    gallery = ~query if split else np.ones(len(pictures), bool)
    asked = query if split else gallery
    smallest = min(
        sum(label == name for label, chosen in zip(labels, gallery, strict=True) if chosen) for name in set(labels)
    )
    k = max(1, min(k, smallest if split else smallest - 1))
    truth, paths = np.array(labels), np.array([picture.path for picture in pictures])

    def knn(features: np.ndarray, zscore: bool) -> KnnResult:
        if split:
            return knn_accuracy(features[gallery], truth[gallery], features[asked], truth[asked], k=k, zscore=zscore)
        return knn_leave_one_out(features, labels, paths.tolist(), k=k, zscore=zscore)

    pixels = [picture.pixels for picture in pictures]
    chosen = [pixels[index] for index in np.flatnonzero(gallery)]
    rest = [pixels[index] for index in np.flatnonzero(asked)]
    of_gallery, of_query = log_spectrum_pca(chosen, rest, size=window)
    spectra = np.empty((len(pictures), of_gallery.shape[1]))
    spectra[gallery] = of_gallery
    spectra[asked] = of_query
    methods = (
        Score(network, "network", knn(vectors, True)),
        Score("Same network, untrained", "untrained", knn(untrained, True)),
        Score("Log-spectrum PCA", "log_spectrum_pca", knn(spectra, False)),
        Score("Intensity histogram", "intensity_histogram", knn(intensity_histograms(pixels), True)),
    )
    return Scores(
        methods=methods,
        chance=chance_accuracy(truth[gallery].tolist(), truth[asked].tolist()),
        labels=tuple(truth[asked].tolist()),
        sources=tuple(paths[asked].tolist()),
        gallery=int(gallery.sum()),
        left_out=not split,
    )


def standardised(pictures: Sequence[Picture], vectors: np.ndarray) -> np.ndarray:
    """Vectors z-scored by the gallery (by all, where there is none), as all comparisons here use them."""
    gallery = np.array([picture.part != "query" for picture in pictures])
    return zscore_by(vectors[gallery], vectors)[1]
