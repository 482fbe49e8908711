"""The split of a source image: one rule and one pair of shares, for every command that splits anything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import sha256_file

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SplitShares:
    """Shares of the source images that are kept for validation and test; the rest is for training.

    Example:
        >>> SplitShares(validation=0.1, test=0.2).train
        0.7
    """

    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise UserError(
                f"validation {self.validation} and test {self.test} are not shares; give two numbers from 0 whose sum "
                "is below 1"
            )

    @property
    def train(self) -> float:
        """Share for training."""
        return round(1.0 - self.validation - self.test, 12)


SHARES = SplitShares()
"""Shares that every command uses unless it is given others."""


def split_of(source: str, shares: SplitShares = SHARES) -> Split:
    """Return the split of a source image: a function of its id alone.

    A hash of the id gives a number in [0, 1). Ids below the share of the test are in the test, those in the next
    interval in the validation split, all others in train. No other image, order or seed is looked at, so that adding,
    removing or reordering images moves none, and every command that reads the same images agrees. The price: shares
    hold on average only, classes are not balanced, and a small folder can get an uneven or empty split.

    Splits of other shares nest: a larger test share adds sources to the test and never removes one.

    Args:
        source: Id of the source image.
        shares: Shares of validation and test.

    Example:
        >>> [split_of(source) for source in ("cell 0", "cell 1", "cell 2")]
        ['test', 'train', 'validation']
    """
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < shares.test:
        return "test"
    return "validation" if position < shares.test + shares.validation else "train"


def file_id(file: Path) -> str:
    """Return the id of an image file as a source image: a hash of its bytes, which no renaming changes."""
    return sha256_file(file)[:16]
