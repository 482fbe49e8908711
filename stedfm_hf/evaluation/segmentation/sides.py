"""Which annotated images are scored, and which baselines may learn from (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stedfm_hf.labels.annotated import AnnotatedImages, class_warnings
from stedfm_hf.labels.labelled.reading import ONE_SPLIT
from stedfm_hf.labels.splits import DEALT, check_no_leakage, split_by_source
from stedfm_hf.runs import UserError


@dataclass(frozen=True)
class Sides:
    """What is scored and what is learned from; they share no source image.

    Args:
        test: the images that are scored.
        train: those baselines are fitted on; None where there are none.
        split: what the scored ones are of: a split of the data set, or the side of a split that was made.
        how: how that came about, in words.
    """

    test: AnnotatedImages
    train: AnnotatedImages | None
    split: str
    how: str

    def warnings(self) -> list[str]:
        """Classes that a side lacks."""
        named = {"test": self.test} if self.train is None else {"train": self.train, "test": self.test}
        return class_warnings(named)

    def facts(self) -> dict[str, Any]:
        """Images, sources and pixels of every class, plain data."""
        named = {"test": self.test} if self.train is None else {"train": self.train, "test": self.test}
        return {
            name: {"images": len(data), "sources": len(set(data.sources.tolist())), "pixels": data.counts()}
            for name, data in named.items()
        }


def choose_sides(splits: Mapping[str, AnnotatedImages], split: str | None, *, seed: int = 0) -> Sides:
    """Finds what is scored: the split that was asked for, else the test.

    A data set without splits is dealt out by source image, as a fine-tuning does with the same seed; with its one
    split named, it is scored whole.

    Args:
        splits: as :func:`~stedfm_hf.labels.annotated.read_annotated` gives them.
        split: the one asked for; None: `test`, else `validation`.
        seed: of a split that has to be made.

    Raises:
        UserError: there is no such split, nothing to be scored, or one source image on two sides.

    Example:
        >>> import numpy as np
        >>> from stedfm_hf.labels.annotated import from_arrays
        >>> data = from_arrays("cells", [np.eye(8)] * 10, [np.eye(8, dtype=np.uint8)] * 10)
        >>> sides = choose_sides({"all": data}, None)
        >>> len(sides.train), len(sides.test), len(choose_sides({"all": data}, "all").test)
        (7, 1, 10)
    """
    check_no_leakage(splits)
    name = next(iter(splits.values())).name
    if split is not None and split in splits:
        train = splits.get("train") if split != "train" else None
        return Sides(splits[split], train, split, f"The split {split} of the data set was scored.")
    if set(splits) == {ONE_SPLIT} and split in (None, *DEALT):
        parts = split_by_source(splits[ONE_SPLIT], DEALT, seed)
        wanted = split or "test"
        shares = ", ".join(f"{100 * share:.0f} % {side}" for side, share in DEALT.items())
        how = (
            f"The data set has no splits: its source images were dealt out at random (seed {seed}; {shares}), as a "
            f"fine-tuning does with the same split seed, and {wanted} was scored."
        )
        return Sides(parts[wanted], parts["train"] if wanted != "train" else None, wanted, how)
    if split is not None:
        raise UserError(f"{name}: has no split {split!r}; there are {', '.join(splits)}")
    for other in ("test", "validation"):
        if other in splits:
            how = f"The split {other} of the data set was scored" + (
                "."
                if other == "test"
                else ": it has no test. A model whose best epoch was chosen on it looks too good."
            )
            return Sides(splits[other], splits.get("train"), other, how)
    raise UserError(
        f"{name}: has the splits {', '.join(splits)}, none of them a test; name the one to score (--split)"
    )
