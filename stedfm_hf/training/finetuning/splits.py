"""Which images a fine-tuning is trained, selected and tested on."""

from __future__ import annotations

from collections.abc import Mapping

from stedfm_hf.labels.splits import ONE_SPLIT, Images, Splits, split_images
from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.arguments import SplitArguments

_USUAL = {"train_split": "train", "validation_split": "validation", "test_split": "test"}


def splits_for_training(read: Mapping[str, Images], data: SplitArguments) -> Splits[Images]:
    """Return train, validation and, if there is one, test; see :func:`~stedfm_hf.labels.splits.split_images`.

    Args:
        read: Images by split, as they were read.
        data: Names of the splits to take.

    Raises:
        UserError: The data set has no such split, or as :func:`~stedfm_hf.labels.splits.split_images`.
    """
    if set(read) == {ONE_SPLIT}:
        if named := [flag for flag, usual in _USUAL.items() if getattr(data, flag) != usual]:
            raise UserError(f"{data.dataset}: has no splits; leave --{named[0]} out")
        return split_images(read, select=True)
    chosen = {}
    for flag, usual in _USUAL.items():
        name = getattr(data, flag)
        if name in read:
            chosen[usual] = read[name]
        elif usual == "train" or name != usual:
            raise UserError(f"{data.dataset}: has no split {name!r}; give --{flag}, one of {', '.join(read)}")
    return split_images(chosen, select=True)


def index_or_name(text: str | None) -> str | int | None:
    """A number where the text is one: series and channels go by either."""
    return int(text) if text is not None and text.isdecimal() else text
