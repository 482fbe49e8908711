"""Three sides of a data set that share no source image (ours).

The best model is chosen on `validation` and never on `test`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stedfm_hf.labels.labelled.reading import ONE_SPLIT
from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.labels.splits import DEALT, check_no_leakage, split_by_source
from stedfm_hf.runs import UserError, counted
from stedfm_hf.training.finetuning.arguments import SplitArguments

Images = TypeVar("Images", bound=SourcedImages[Any])


@dataclass(frozen=True)
class Material(Generic[Images]):
    """The images of a fine-tuning.

    Args:
        train: all images that may be trained on.
        validation: images the best model is chosen on.
        test: images the result is told of; None where there are none.
        how: how the sides were made, in a sentence.
    """

    train: Images
    validation: Images
    test: Images | None
    how: str

    def sides(self) -> dict[str, Images]:
        """Validation and test, where there is one."""
        found = {"validation": self.validation, "test": self.test}
        return {name: data for name, data in found.items() if data is not None}

    def counts(self) -> str:
        """How many images each part has, for people."""
        parts = {"train": self.train} | self.sides()
        return ", ".join(counted(len(part), f"{name} image") for name, part in parts.items())


def make_sides(splits: Mapping[str, Images], data: SplitArguments) -> Material[Images]:
    """Makes three sides of the splits of a data set; what is missing is cut by source image.

    Args:
        splits: images by split, as they were read.
        data: names the splits.

    Raises:
        UserError: the data set has no such split, or one source image on two sides.
    """
    material = _cut(splits, data)
    check_no_leakage({"train": material.train} | material.sides())
    return material


def _cut(splits: Mapping[str, Images], data: SplitArguments) -> Material[Images]:
    if set(splits) == {ONE_SPLIT}:
        named = {"train_split": "train", "validation_split": "validation", "test_split": "test"}
        for flag, usual in named.items():
            if getattr(data, flag) != usual:
                raise UserError(f"{data.dataset}: has no splits; leave --{flag} out")
        whole = splits[ONE_SPLIT]
        parts = split_by_source(whole, DEALT, data.split_seed)
        how = f"no splits: cut by source image into {_percent(DEALT)} with split_seed {data.split_seed}"
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
    shares = {"train": 1 - DEALT["validation"], "validation": DEALT["validation"]}
    parts = split_by_source(train, shares, data.split_seed)
    how = f"no validation split: train was cut by source image into {_percent(shares)}, split_seed {data.split_seed}"
    return Material(parts["train"], parts["validation"], test, how + without)


def _percent(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{100 * share:.0f} % {name}" for name, share in shares.items())


def index_or_name(text: str | None) -> str | int | None:
    """A number where the text is one: series and channels go by either."""
    return int(text) if text is not None and text.isdecimal() else text
