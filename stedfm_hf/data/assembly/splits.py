"""Splits by source image: crops of one image are never on two sides (ours; the reference has no split at all)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from stedfm_hf.runs.errors import UserError


@dataclass(frozen=True)
class SplitShares:
    """Shares of the source images that are kept for validation and test; the rest is for training.

    Example:
        >>> SplitShares(validation=0.1, test=0.2).train
        0.7
    """

    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise UserError(
                f"validation {self.validation} and test {self.test} are no shares; give two numbers from 0 whose sum "
                "is below 1"
            )

    @property
    def train(self) -> float:
        """Share for training."""
        return round(1.0 - self.validation - self.test, 12)


def split_sources(sources: Mapping[str, str | None], shares: SplitShares, *, seed: int) -> dict[str, str]:
    """Deals source images out to the splits, each class for itself, by a hash of seed and id.

    The result does not depend on the order of the sources. Rounding is carried on from class to class, so that the
    totals come out as asked for; with three sources or more no split that was asked for stays empty.

    Args:
        sources: the class of every source, or None.
        shares: of the splits.
        seed: of the dealing.

    Returns:
        The split of every source.

    Example:
        >>> splits = split_sources({str(n): "ab"[n % 2] for n in range(20)}, SplitShares(), seed=0)
        >>> [sum(split == name for split in splits.values()) for name in ("train", "validation", "test")]
        [16, 2, 2]
    """
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for source, label in sources.items():
        classes[label or ""].append(source)
    names = ("test", "validation")
    wanted = {"test": shares.test, "validation": shares.validation}
    owed = dict.fromkeys(names, 0.0)
    result: dict[str, str] = {}
    for label in sorted(classes):
        members = sorted(classes[label], key=lambda source: _rank(seed, source))
        for name in names:
            owed[name] += wanted[name] * len(members)
        left = len(members)
        for name in names:
            # One of a class stays for training: what is never seen cannot be learned.
            count = max(0, min(round(owed[name]), left - 1))
            owed[name] -= count
            for source in members[left - count : left]:
                result[source] = name
            left -= count
        result.update(dict.fromkeys(members[:left], "train"))
    _fill_empty(result, [name for name in names if wanted[name]], seed)
    return result


def _fill_empty(result: dict[str, str], names: list[str], seed: int) -> None:
    for name in names:
        training = sorted(
            (s for s, split in result.items() if split == "train"), key=lambda source: _rank(seed, source)
        )
        if name not in result.values() and len(training) > 1:
            result[training[-1]] = name


def _rank(seed: int, source: str) -> bytes:
    return hashlib.sha256(f"{seed}/{source}".encode()).digest()
