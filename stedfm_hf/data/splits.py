"""Assignment of source images to train, validation and test: one rule for every command that splits data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import sha256_file

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SplitFractions:
    """Fractions of the source images for validation and test; the rest is for training.

    Attributes:
        validation: Fraction of the source images in the validation split, in [0, 1).
        test: Fraction of the source images in the test split, in [0, 1).

    Raises:
        UserError: A fraction is negative, or their sum is 1 or more.

    Example:
        >>> SplitFractions(validation=0.1, test=0.2).train
        0.7
    """

    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise UserError(
                f"validation {self.validation} and test {self.test} are not valid split fractions; give two numbers "
                "that are 0 or more and add up to less than 1"
            )

    @property
    def train(self) -> float:
        """Fraction of the source images for training."""
        return round(1.0 - self.validation - self.test, 12)


SPLIT_FRACTIONS = SplitFractions()
"""Default fractions of every command."""


def split_of(source: str, fractions: SplitFractions = SPLIT_FRACTIONS) -> Split:
    """Return the split of a source image, computed from its id alone.

    A hash of the id gives a number in [0, 1). Numbers below `fractions.test` are in the test split, the next
    `fractions.validation` in the validation split, all others in train. The result does not depend on other images,
    their order or a seed. Adding, removing or reordering images therefore moves no other image, and all commands
    agree. The fractions hold on average only, classes are not balanced, and small folders can get an empty split.

    A larger test fraction adds sources to the test split and never removes one.

    Args:
        source: Id of the source image.
        fractions: Fractions of the validation and test splits.

    Returns:
        `"train"`, `"validation"` or `"test"`.

    Example:
        >>> [split_of(source) for source in ("cell 0", "cell 1", "cell 2")]
        ['test', 'train', 'validation']
    """
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < fractions.test:
        return "test"
    return "validation" if position < fractions.test + fractions.validation else "train"


def file_id(file: Path) -> str:
    """Return the source id of an image file: the first 16 hex digits of the SHA-256 of its bytes.

    The id of a folder that is one image (OME-Zarr) is that of the names and hashes of the files in it.
    """
    if not file.is_dir():
        return sha256_file(file)[:16]
    members = sorted((each.relative_to(file).as_posix(), each) for each in file.rglob("*") if each.is_file())
    listed = json.dumps([[name, sha256_file(each)] for name, each in members])
    return hashlib.sha256(listed.encode()).hexdigest()[:16]
