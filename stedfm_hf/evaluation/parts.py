"""What is learned from, chosen on and tested on, and how that came about (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stedfm_hf.labels.labelled.images import LabelledImages
from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.labels.splits import check_no_leakage, split_by_source
from stedfm_hf.runs import UserError, counted

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
FEW_SOURCES, FEW_PER_CLASS = 20, 5
"""Fewer source images than these in the test, or of one of its classes: no conclusion can be drawn."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The sides of an evaluation; no source image is on two of them.

    Args:
        whole: the splits of the data set they were taken of, by name: vectors are computed of these.
        sides: train, test and maybe validation; `all` alone where every image asks all of other sources.
        origin: name of the split that each side was taken of.
        how: how the sides were made, in words.
    """

    whole: Mapping[str, LabelledImages]
    sides: Mapping[str, LabelledImages]
    origin: Mapping[str, str]
    how: str

    @property
    def test(self) -> LabelledImages:
        """What models are tested on."""
        return self.sides["test"] if "test" in self.sides else self.sides["all"]

    @property
    def train(self) -> LabelledImages:
        """What they learn from."""
        return self.sides["train"] if "train" in self.sides else self.sides["all"]

    def facts(self) -> dict[str, Any]:
        """Images, sources and classes of every side, plain data."""
        return {
            name: {"images": len(side), "sources": len(set(side.sources.tolist())), "classes": side.counts()}
            for name, side in self.sides.items()
        }

    def doubts(self) -> list[str]:
        """Why no conclusion can be drawn; empty where one can."""
        return doubts_about(self.test)


def doubts_about(test: SourcedImages[Any]) -> list[str]:
    """Why no conclusion can be drawn from figures of these images; empty where one can."""
    count, found = len(set(test.sources.tolist())), []
    if count < FEW_SOURCES:
        found.append(f"the test has only {counted(count, 'source image')}")
    each = {name: len(set(test.sources[there].tolist())) for name, there in test.shown().items()}
    few = [f"{name} ({number})" for name, number in each.items() if number < FEW_PER_CLASS]
    if few:
        found.append(f"of these classes it has fewer than {FEW_PER_CLASS} source images: {', '.join(few)}")
    return found


def make_parts(splits: Mapping[str, LabelledImages], *, seed: int = 0, leave_one_out: bool = False) -> Parts:
    """Takes the splits of a data set as they are; makes some by source image where there are none.

    Args:
        splits: as :func:`~stedfm_hf.labels.labelled.read_labelled` gives them.
        seed: of a split that has to be made.
        leave_one_out: leaves a data set of one split whole: every image is tested with the others.

    Raises:
        UserError: a source is on two sides, there are too few sources, or a class is missing in train.
    """
    check_no_leakage(splits)
    if "train" in splits and ("test" in splits or "validation" in splits):
        wanted = [name for name in ("train", "validation", "test") if name in splits]
        whole = {name: splits[name] for name in wanted}
        if "test" in splits:
            return Parts(whole, whole, {name: name for name in wanted}, "The splits are those of the data set.")
        sides = {"train": whole["train"], "test": whole["validation"]}
        how = "The data set has no test split: its validation split is the test, and nothing was chosen on it."
        return Parts(whole, sides, {"train": "train", "test": "validation"}, how)
    if len(splits) > 1:
        raise UserError(f"{next(iter(splits.values())).name}: has the splits {', '.join(splits)}; name one (--split)")
    ((name, data),) = splits.items()
    if leave_one_out:
        how = "There is one split: every image was tested with all images of other source images."
        return Parts({name: data}, {"all": data}, {"all": name}, how)
    # A class with two sources cannot be on three sides: then nothing is kept for a validation.
    wanted = [side for side in SHARES if side != "validation" or _least_sources(data) >= len(SHARES)]
    sides = split_by_source(data, {side: SHARES[side] for side in wanted}, seed)
    missing = [label for label, count in sides["train"].counts().items() if not count]
    if missing:
        raise UserError(
            f"{data.name}: no source image of class {', '.join(missing)} is left for train; add images of it, or make "
            "a data set with splits"
        )
    shares = ", ".join(f"{100 * SHARES[side] / sum(SHARES[each] for each in sides):.0f} % {side}" for side in sides)
    how = (
        f"The data set has one split: its source images were dealt out at random (seed {seed}; {shares}), each class "
        "for itself as far as its sources allow."
    )
    return Parts({name: data}, sides, dict.fromkeys(sides, name), how)


def _least_sources(data: LabelledImages) -> int:
    """Source images of the class that has fewest; of a regression all."""
    if data.task != "classes":
        return len(set(data.sources.tolist()))
    return min(len(set(data.sources[data.labels == number].tolist())) for number in range(len(data.classes)))


def without_failed(
    parts: Parts, vectors: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[Parts, dict[str, dict[str, np.ndarray]]]:
    """Leaves images that could not be read out of all sides, of all models alike.

    Args:
        parts: the sides.
        vectors: of every model and side.

    Raises:
        UserError: a side comes out empty.
    """
    good = {
        side: np.all([np.isfinite(each[side]).all(axis=1) for each in vectors.values()], axis=0)
        for side in parts.sides
    }
    for side, kept in good.items():
        if not kept.any():
            raise UserError(f"{parts.train.name}: no image of {side} can be read")
    sides = {side: data.take(good[side]) for side, data in parts.sides.items()}
    kept_vectors = {key: {side: each[side][good[side]] for side in sides} for key, each in vectors.items()}
    return replace(parts, sides=sides), kept_vectors
