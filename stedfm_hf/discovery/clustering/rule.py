"""Parameters of the valley rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ValleyRule:
    """Parameters of the valley rule, which splits a node only where held-out data show a valley of density.

    The defaults were set on simulated clouds; `docs/benchmarks/clustering.md` lists what they find and what they miss.

    Attributes:
        k_max: Largest number of pieces.
        alpha: Significance level of a node.
        ratio: Density of the valley divided by that of its shoulder, below which a valley separates groups, in (0, 1).
        min_group: Smallest group, and smallest mean size of a piece, in sources.
        min_node: Smallest node that is tested, in sources.
        folds: Number of cross-validation folds.
        starts: Number of k-means++ starts.
        dimensions: Largest number of principal components.
        max_items: Largest number of items that a node is tested with, and that k-means is fitted to.
        resamples: Number of resamples of the consensus.
        fraction: Fraction of the sources in a resample.
        min_stability: Smallest mean stability of a group.
        similar_separation: Proposals with a separation of at least this fraction of the best one are preferred by
            their number of groups.
    """

    k_max: int = 10
    alpha: float = 0.05
    ratio: float = 0.6
    min_group: int = 8
    min_node: int = 24
    folds: int = 5
    starts: int = 5
    dimensions: int = 50
    max_items: int = 20_000
    resamples: int = 30
    fraction: float = 0.8
    min_stability: float = 0.8
    similar_separation: float = 0.75

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: If a value is out of range.
        """
        for name in ("alpha", "ratio", "fraction", "min_stability", "similar_separation"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        for name, least in (("k_max", 2), ("folds", 2), ("starts", 1), ("dimensions", 2), ("resamples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
