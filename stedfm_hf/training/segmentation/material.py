"""Which annotated images a segmenter is trained, selected and tested on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from stedfm_hf.labels.annotated import (
    AnnotatedImages,
    draw_fraction,
    draw_per_class,
    parse_classes,
    read_annotated,
)
from stedfm_hf.labels.annotated.drawing import shuffled
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import UserError, some_of
from stedfm_hf.training.finetuning.splits import index_or_name, splits_for_training
from stedfm_hf.training.segmentation.arguments import DataArguments

SCORING_BYTES = 100
"""Of memory for a pixel of an image that is scored, about: 81 to 117 were measured with two to six classes."""
MUCH_MEMORY = 4 * 2**30


def read_splits(data: DataArguments, *, image_size: int) -> Splits[AnnotatedImages]:
    """Read annotated images and split them.

    Training images of which no crop can be annotated as much as asked for are left out; of validation and test all
    count.

    Args:
        data: which.
        image_size: side of the crops.

    Raises:
        UserError: The data set has no such split, one source image in two splits, or a class that train lacks.
    """
    read = read_annotated(
        data.dataset,
        masks=data.masks,
        classes=parse_classes(data.classes),
        target_type=data.target_type,
        series=index_or_name(data.series),
        channel=index_or_name(data.channel),
        source_pattern=data.source_pattern,
    )
    splits = splits_for_training(read, data)
    train = splits.train
    enough = train.annotated * train.sizes >= data.min_annotated * np.minimum(image_size**2, train.sizes)
    if not enough.any():
        raise UserError(
            f"{train.name}: none of {len(train)} training images has a crop of which {100 * data.min_annotated:g} % "
            "are annotated; lower --min_annotated"
        )
    # Said of the run and in the card: what it was never trained on.
    how = splits.how.removesuffix(".")
    if unmasked := [place for each in read.values() for place in each.unmasked]:
        how += f"; images without a mask, left out: {some_of(unmasked)}"
    if few := int((~enough).sum()):
        least = f"{100 * data.min_annotated:g} %"
        how += (
            f"; training images no crop of which can be annotated to {least}, left out: {few:,} of {len(train):,} "
            f"({some_of(train.places[~enough].tolist())})"
        )
    splits = replace(splits, train=train.take(enough), how=f"{how}.")
    missing = [name for name, count in splits.train.counts().items() if not count]
    if missing:
        elsewhere = any(images.counts()[name] for images in splits.held_out().values() for name in missing)
        raise UserError(
            f"{train.name}: no pixel of {', '.join(missing)} is in the training images"
            f"{', but there are some in other splits' if elsewhere else ''}; annotate some there, or count "
            "it as background: name all numbers with --classes, as 1=NAME 2=background"
        )
    return splits


def class_notes(train: AnnotatedImages) -> list[str]:
    """Says what is learned, and doubts numbers without names: few objects, each with its number, look like classes.

    Args:
        train: what is trained on.
    """
    pixels = int(train.sizes.sum())
    shares = (f"{name} {100 * count / pixels:.3g} %" for name, count in train.counts().items())
    found = [f"{train.name}: of the pixels are {', '.join(shares)}"]
    unnamed = [name for name in train.shown() if re.fullmatch(r"class \d+", name)]
    if len(unnamed) > 2:
        found.append(
            f"{train.name}: the {len(unnamed)} numbers in the masks are taken for classes; if they count objects, "
            "save 1 for every object; if not, --classes names them"
        )
    return found


def memory_warnings(scored: Mapping[str, AnnotatedImages]) -> list[str]:
    """Names images that take much memory when they are scored: all pixels of an image are sorted at once.

    Args:
        scored: Images that are scored, by split.
    """
    found = []
    for data in scored.values():
        largest = int(data.sizes.argmax())
        needed = SCORING_BYTES * int(data.sizes[largest])
        if needed > MUCH_MEMORY:
            found.append(
                f"{data.name}: scoring {data.places[largest]} ({data.sizes[largest] / 1e6:,.0f} million pixels) takes "
                f"about {needed / 2**30:.0f} GiB of memory; if there is less, cut it into pieces"
            )
    return found


def check_choice(validation: AnnotatedImages, figure: str) -> None:
    """Refuses to choose by the overlap with masks that are empty: only what is marked wrongly would have a value.

    Args:
        validation: images the best model is chosen on.
        figure: by which it is.

    Raises:
        UserError: there is no pixel of any class.
    """
    if figure != "loss" and not any(there.any() for there in validation.shown().values()):
        raise UserError(
            f"{validation.name}: no pixel of any class is in validation, and nothing can be chosen by {figure}; "
            "annotate some of its images, or choose by the loss (--choose_by loss)"
        )


def draw(train: AnnotatedImages, data: DataArguments, seed: int) -> AnnotatedImages:
    """The images a run of this seed may see.

    Raises:
        UserError: more images are asked for than there are.
    """
    if data.labels_per_class is not None:
        return draw_per_class(train, data.labels_per_class, seed)
    if data.label_count is not None:
        if data.label_count > len(train):
            raise UserError(
                f"{train.name}: {data.label_count} training images were asked for, but there are {len(train)}; ask "
                "for fewer"
            )
        return train.take(np.sort(shuffled(train, seed)[: data.label_count]))
    return train if data.label_fraction is None else draw_fraction(train, data.label_fraction, seed)
