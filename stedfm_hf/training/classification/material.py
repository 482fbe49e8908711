"""Which images a classifier is trained, chosen and tested on (ours).

Three sides that share no source image: the best model is chosen on `validation` and never on `test`.
"""

from __future__ import annotations

from dataclasses import dataclass

from stedfm_hf.evaluation.labelled import LabelledImages, read_labelled
from stedfm_hf.evaluation.labelled.reading import ONE_SPLIT
from stedfm_hf.evaluation.labelled.splits import check_no_leakage, draw_fraction, draw_per_class, split_by_source
from stedfm_hf.runs import UserError
from stedfm_hf.training.classification.arguments import DataArguments

CHECKED, TESTED = 0.15, 0.15
"""Shares of the source images of a data set without splits that go to validation and test."""


@dataclass(frozen=True)
class Material:
    """The images of a fine-tuning.

    Args:
        train: all images that may be trained on.
        validation: images the best model is chosen on.
        test: images the result is told of; None where there are none.
        how: how the sides were made, in a sentence.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages | None
    how: str

    def sides(self) -> dict[str, LabelledImages]:
        """Validation and test, where there is one."""
        found = {"validation": self.validation, "test": self.test}
        return {name: data for name, data in found.items() if data is not None}

    def drawn(self, data: DataArguments, seed: int) -> LabelledImages:
        """The labels a run of this seed may see.

        Raises:
            UserError: a class has fewer images than asked for.
        """
        if data.labels_per_class is not None:
            return draw_per_class(self.train, data.labels_per_class, seed)
        return self.train if data.label_fraction is None else draw_fraction(self.train, data.label_fraction, seed)


def read_material(data: DataArguments) -> Material:
    """Reads labelled images and makes three sides of them.

    Raises:
        UserError: the data set has no such split, or one source image on two sides.
    """
    splits = read_labelled(
        data.dataset,
        target=data.target,
        series=_index_or_name(data.series),
        channel=_index_or_name(data.channel),
        source_pattern=data.source_pattern,
    )
    material = _sides(splits, data)
    check_no_leakage({"train": material.train} | material.sides())
    _check_classes(material)
    return material


def _sides(splits: dict[str, LabelledImages], data: DataArguments) -> Material:
    if set(splits) == {ONE_SPLIT}:
        whole = splits[ONE_SPLIT]
        shares = {"train": 1 - CHECKED - TESTED, "validation": CHECKED, "test": TESTED}
        parts = split_by_source(whole, shares, data.split_seed)
        how = f"no splits: cut by source image into {_percent(shares)} with split_seed {data.split_seed}"
        return Material(parts["train"], parts["validation"], parts["test"], how)
    for name, flag in ((data.train_split, "train_split"), (data.validation_split, "validation_split")):
        if name not in splits and (flag == "train_split" or name != "validation"):
            raise UserError(f"{data.dataset}: has no split {name!r}; give --{flag}, one of {', '.join(splits)}")
    train, test = splits[data.train_split], splits.get(data.test_split)
    if test is None and data.test_split != "test":
        raise UserError(
            f"{data.dataset}: has no split {data.test_split!r}; give --test_split, one of {', '.join(splits)}"
        )
    without = "" if test is not None else "; there is no test split"
    if data.validation_split in splits:
        return Material(train, splits[data.validation_split], test, f"the splits of the data set{without}")
    shares = {"train": 1 - CHECKED, "validation": CHECKED}
    parts = split_by_source(train, shares, data.split_seed)
    how = f"no validation split: train was cut by source image into {_percent(shares)}, split_seed {data.split_seed}"
    return Material(parts["train"], parts["validation"], test, how + without)


def _check_classes(material: Material) -> None:
    """Every class must be in train, or nothing can be learned of it."""
    missing = [name for name, count in material.train.counts().items() if not count]
    if missing:
        raise UserError(
            f"{material.train.name}: no image of class {', '.join(missing)} is left in train: all are of one source "
            "image, or of other splits; label more source images of it, or leave the class out"
        )


def _percent(shares: dict[str, float]) -> str:
    return ", ".join(f"{100 * share:.0f} % {name}" for name, share in shares.items())


def _index_or_name(text: str | None) -> str | int | None:
    """A number where the text is one: series and channels go by either."""
    return int(text) if text is not None and text.isdecimal() else text
