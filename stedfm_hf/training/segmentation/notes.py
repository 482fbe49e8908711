"""What a user should know of annotated images before a segmenter is trained on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.data import IN_MEMORY
from stedfm_hf.training.segmentation.data import AnnotatedSplit

SCORING_BYTES = 100
"""Bytes of memory for a pixel of an image that is scored: 81 to 117 were measured with two to six classes."""
MUCH_MEMORY = 4 * 2**30


def class_notes(train: AnnotatedImages) -> list[str]:
    """Return the share of each class, and a warning about numbers without names: they may count objects."""
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
    """Return a warning for images that take much memory when they are scored: all their pixels are sorted at once."""
    found = []
    for data in scored.values():
        largest = int(data.sizes.argmax())
        needed = SCORING_BYTES * int(data.sizes[largest])
        if needed > MUCH_MEMORY:
            found.append(
                f"{data.name}: scoring {data.image_ids[largest]} ({data.sizes[largest] / 1e6:,.0f} million pixels) "
                f"needs about {needed / 2**30:.0f} GiB of memory; if there is less, cut it into pieces"
            )
    return found


def check_metric(validation: AnnotatedImages, metric: str) -> None:
    """Refuse to choose by the overlap with masks that are empty: only what is marked wrongly would have a value.

    Raises:
        UserError: There is no pixel of any class.
    """
    if metric != "loss" and not any(there.any() for there in validation.shown().values()):
        raise UserError(
            f"{validation.name}: no pixel of any class is in validation, and nothing can be chosen by {metric}; "
            "annotate some of its images, or choose by the loss (--metric-for-best-model loss)"
        )


def crop_notes(train: AnnotatedSplit, shapes: Sequence[tuple[int, int]], *, size: int, image_size: int) -> list[str]:
    """Return warnings about the training images of a run.

    Args:
        train: Training images, all of them read.
        shapes: (H, W) of each.
        size: Size of the crops.
        image_size: Size of the images of the model.
    """
    found = [
        f"no training image of the sample shows {name}: it cannot be learned"
        for name, there in train.data.shown().items()
        if not there.any()
    ]
    if size < image_size:
        found.append(f"crops have {size} pixels and not {image_size}: no training image holds larger ones")
    small = [place for place, shape in zip(train.data.image_ids, shapes, strict=True) if min(shape) < size]
    if small:
        found.append(
            f"{len(small):,} of {len(shapes):,} training images are smaller than a crop ({small[0]}, ...): mirrored "
            "up to it; what is added does not count"
        )
    if again := len(train.items) - train.items.kept:
        found.append(
            f"{again:,} of {len(train.items):,} training images are not kept in memory ({IN_MEMORY >> 20:,} MiB), and "
            "read again for every crop; cut large fields into pieces, if that is slow"
        )
    return found
