"""Which labelled images a classifier is trained, selected and tested on."""

from __future__ import annotations

from stedfm_hf.labels.labelled import LabelledImages, draw_fraction, draw_per_class, read_labelled
from stedfm_hf.labels.splits import Splits
from stedfm_hf.training.classification.arguments import DataArguments
from stedfm_hf.training.finetuning.splits import index_or_name, splits_for_training


def read_splits(data: DataArguments) -> Splits[LabelledImages]:
    """Read labelled images and split them.

    Raises:
        UserError: The data set has no such split, one source image in two splits, or a class that train lacks.
    """
    read = read_labelled(
        data.dataset,
        target=data.target,
        series=index_or_name(data.series),
        channel=index_or_name(data.channel),
        source_pattern=data.source_pattern,
    )
    return splits_for_training(read, data)


def draw(train: LabelledImages, data: DataArguments, seed: int) -> LabelledImages:
    """The labels a run of this seed may see.

    Raises:
        UserError: a class has fewer images than asked for.
    """
    if data.labels_per_class is not None:
        return draw_per_class(train, data.labels_per_class, seed)
    return train if data.label_fraction is None else draw_fraction(train, data.label_fraction, seed)
