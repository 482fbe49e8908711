"""Evidence for and against a split: everything that was tested in a node."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PairEvidence:
    """Test of the density between two pieces.

    Counts are numbers of sources; they are fractional where a source has several crops.

    Attributes:
        first: Number of a piece.
        second: Number of the other piece.
        p: p value of the null hypothesis that valley and gap are at least `ratio` times as dense as each shoulder.
        ratio: Density of the valley divided by that of the thinner shoulder; None if the shoulder is empty.
        d_prime: Distance between both sides of the valley, in pooled standard deviations.
        valley: Held-out items in the valley.
        gap: Held-out items in the whole gap between the shoulders, three times as wide as the valley.
        left: Held-out items in the shoulder of the first piece.
        right: Held-out items in the shoulder of the second piece.
        folds: Number of folds in which both pieces were found again.
    """

    first: int
    second: int
    p: float
    ratio: float | None
    d_prime: float
    valley: float
    gap: float
    left: float
    right: float
    folds: int


@dataclass(frozen=True)
class LevelEvidence:
    """Test of one number of pieces in one space.

    Attributes:
        space: Name of the space: "raw" or "half".
        k: Number of pieces.
        threshold: p value below which a pair of pieces is separated.
        pairs: Evidence of all pairs of pieces.
        group_of_piece: Group of each piece; pieces without a valley between them are one group.
        decides: Position in `pairs` of the pair that decides. With one group, it is the weakest link: the group would
            fall into two if its p were below the threshold. With several, it is the pair of pieces in different
            groups with the largest p.
        profile: Held-out sources per bin of the coordinate in [-1.5, 1.5], for the pair that decides.
        p: Largest p value of pairs in different groups; None if there is one group.
        separation: Smallest d' of pairs in different groups; None if there is one group.
        stability: Mean stability of the least stable group; None if it was not computed.
        result: "accepted", or why the level does not split the node.
    """

    space: str
    k: int
    threshold: float
    pairs: tuple[PairEvidence, ...]
    group_of_piece: tuple[int, ...]
    decides: int
    profile: tuple[float, ...]
    p: float | None
    separation: float | None
    stability: float | None
    result: str

    @property
    def clearest(self) -> PairEvidence:
        """Pair that decides whether the level proposes groups.

        It is not the pair with the smallest p, which joins pieces far apart: few items lie between these in any cloud.
        """
        return self.pairs[self.decides]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return max(self.group_of_piece) + 1


@dataclass(frozen=True)
class NodeEvidence:
    """Test of a node.

    Attributes:
        n_items: Number of items.
        n_sources: Number of different sources.
        levels: Evidence of all levels; empty if the node was not tested.
        result: "split", or why the node is a leaf.
    """

    n_items: int
    n_sources: int
    levels: tuple[LevelEvidence, ...]
    result: str

    @property
    def accepted(self) -> LevelEvidence | None:
        """Level that split the node."""
        return next((level for level in self.levels if level.result == "accepted"), None)

    @property
    def clearest(self) -> LevelEvidence | None:
        """Level that split the node, or came closest to it; None if the node was not tested."""

        def key(level: LevelEvidence) -> tuple[float, float]:
            return level.clearest.p / level.threshold, -level.clearest.d_prime

        return self.accepted or min(self.levels, key=key, default=None)


@dataclass(frozen=True)
class ReferenceEvidence:
    """Statistics of the published rule in a node.

    Attributes:
        n_items: Number of items.
        areas: Area statistic for 2, 3, ... clusters; empty if the node was not tested.
        k: Chosen number of clusters.
        intra: Mean consensus inside the clusters.
        inter: Mean consensus between clusters.
        result: "split", or why the node is a leaf.
    """

    n_items: int
    areas: tuple[float, ...]
    k: int | None
    intra: float | None
    inter: float | None
    result: str


@dataclass(frozen=True)
class PartitionEvidence:
    """Description of a partition whose number of groups was given: no test.

    Attributes:
        n_items: Number of items.
        k: Number of groups; None for a group of the partition.
        stability: Mean stability of each group, in the order of the children.
        result: "partition", or "group of a partition".
    """

    n_items: int
    k: int | None
    stability: tuple[float, ...]
    result: str


Evidence = NodeEvidence | ReferenceEvidence | PartitionEvidence


def evidence_to_dict(evidence: Evidence) -> dict[str, Any]:
    """Return evidence as plain data.

    Args:
        evidence: Evidence of a node.
    """
    return {"kind": type(evidence).__name__, **asdict(evidence)}


def evidence_from_dict(data: dict[str, Any]) -> Evidence:
    """Rebuild evidence from plain data.

    Args:
        data: Result of `evidence_to_dict`, also after JSON.

    Raises:
        ValueError: If the kind of evidence is unknown.
    """
    data = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    match data.pop("kind"):
        case "ReferenceEvidence":
            return ReferenceEvidence(**data)
        case "PartitionEvidence":
            return PartitionEvidence(**data)
        case "NodeEvidence":
            return NodeEvidence(**{**data, "levels": tuple(_level(each) for each in data["levels"])})
        case kind:
            raise ValueError(f"evidence of kind {kind!r} is unknown")


def _level(data: dict[str, Any]) -> LevelEvidence:
    pairs = tuple(PairEvidence(**pair) for pair in data["pairs"])
    listed = {name: tuple(data[name]) for name in ("group_of_piece", "profile")}
    return LevelEvidence(**{**data, **listed, "pairs": pairs})
