"""Which images a classifier is trained, chosen and tested on (ours)."""

from __future__ import annotations

from stedfm_hf.labels.labelled import LabelledImages, draw_fraction, draw_per_class, read_labelled
from stedfm_hf.runs import UserError
from stedfm_hf.training.classification.arguments import DataArguments
from stedfm_hf.training.finetuning.sides import Material, index_or_name, make_sides


def read_material(data: DataArguments) -> Material[LabelledImages]:
    """Reads labelled images and makes three sides of them.

    Raises:
        UserError: the data set has no such split, one source image on two sides, or a class that train lacks.
    """
    splits = read_labelled(
        data.dataset,
        target=data.target,
        series=index_or_name(data.series),
        channel=index_or_name(data.channel),
        source_pattern=data.source_pattern,
    )
    material = make_sides(splits, data)
    missing = [name for name, count in material.train.counts().items() if not count]
    if missing:
        raise UserError(
            f"{material.train.name}: no image of class {', '.join(missing)} is left in train: all are of one source "
            "image, or of other splits; label more source images of it, or leave the class out"
        )
    return material


def draw(train: LabelledImages, data: DataArguments, seed: int) -> LabelledImages:
    """The labels a run of this seed may see.

    Raises:
        UserError: a class has fewer images than asked for.
    """
    if data.labels_per_class is not None:
        return draw_per_class(train, data.labels_per_class, seed)
    return train if data.label_fraction is None else draw_fraction(train, data.label_fraction, seed)
