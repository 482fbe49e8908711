"""Results of the comparison of two trees."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Metric:
    """Value of a metric, or the reason why it is not defined.

    Attributes:
        value: Value, or None if it is not defined.
        reason: Why it is not defined, or None.
    """

    value: float | None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Purity:
    """Fraction of the most frequent label.

    Attributes:
        leaves: Fraction in each leaf; None for leaves whose labels are unknown.
        mean: Mean over the items.
        chance: Fraction in all items.
    """

    leaves: tuple[float | None, ...]
    mean: Metric
    chance: Metric


@dataclass(frozen=True, eq=False)
class Leaves:
    """Leaves of one tree in one feature space.

    Attributes:
        recovery: Fraction of the items whose leaf is that of the majority of their nearest neighbours.
        chance: The same with randomly assigned leaves.
        silhouette: Mean silhouette, with cosine distance.
        within: Cosine distance from the mean of each leaf to the nearest other leaf mean of the same tree (leaves,).
        between: The same to the nearest leaf mean of the other tree (leaves,). Both are NaN where a mean is 0.
    """

    recovery: Metric
    chance: Metric
    silhouette: Metric
    within: np.ndarray
    between: np.ndarray


@dataclass(frozen=True, eq=False)
class Mapping:
    """Items of the leaves of one tree, assigned to the nearest leaf means of another tree by cosine.

    Attributes:
        shares: Fraction of the items of a leaf (row) whose nearest leaf mean is that of a leaf of the other tree
            (column).
        mapped: Whether a share of each leaf is above the threshold (leaves,); a tree with one leaf maps trivially.
        fraction: Fraction of the leaves that are mapped.
    """

    shares: np.ndarray
    mapped: np.ndarray
    fraction: Metric


@dataclass(frozen=True, eq=False)
class SpaceComparison:
    """Two trees in one feature space.

    Attributes:
        first: Leaves of the first tree.
        second: Leaves of the second tree.
        mappings: Mappings "first to second", "second to first", "first to first" and "second to second".
    """

    first: Leaves
    second: Leaves
    mappings: dict[str, Mapping]


@dataclass(frozen=True, eq=False)
class TreeComparison:
    """Comparison of two trees of the same items.

    Attributes:
        items: Number of items.
        first: Ids of the leaves of the first tree.
        second: Ids of the leaves of the second tree.
        ari: Adjusted Rand index of the leaves.
        nmi: Normalised mutual information of the leaves.
        first_purity: Purity of the first tree; None without labels.
        second_purity: Purity of the second tree; None without labels.
        first_space: Both trees in the features of the first tree.
        second_space: Both trees in the features of the second tree.
    """

    items: int
    first: tuple[str, ...]
    second: tuple[str, ...]
    ari: Metric
    nmi: Metric
    first_purity: Purity | None
    second_purity: Purity | None
    first_space: SpaceComparison
    second_space: SpaceComparison

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, lists and dictionaries for JSON; values that are not defined are None."""
        plain = _plain(self)
        assert isinstance(plain, dict)
        return plain


def _plain(value: Any) -> Any:
    """Convert dataclasses and arrays to dictionaries and lists, and NaN to None."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value
