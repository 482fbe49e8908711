"""Notes and warnings about annotated images before the training of a segmenter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.data import CACHE_BYTES
from stedfm_hf.training.segmentation.data import AnnotatedSplit

SCORING_BYTES = 100
"""Memory for scoring in bytes per pixel of an image; measured: 81 to 117 for two to six classes."""
MUCH_MEMORY = 4 * 2**30
"""Memory for scoring one image in bytes above which a warning is printed."""


def class_notes(train: AnnotatedImages) -> list[str]:
    """Return the fraction of pixels of each class, and a warning if the masks may number objects.

    Args:
        train: Training images.
    """
    pixels = int(train.sizes.sum())
    fractions = (f"{name} {100 * count / pixels:.3g} %" for name, count in train.counts().items())
    found = [f"{train.name}: classes of the pixels: {', '.join(fractions)}"]
    unnamed = [name for name in train.class_presence() if re.fullmatch(r"class \d+", name)]
    if len(unnamed) > 2:
        found.append(
            f"{train.name}: the {len(unnamed)} numbers in the masks are read as classes. If they number objects, save "
            "all objects as 1; otherwise name the classes with --classes."
        )
    return found


def memory_warnings(scored: Mapping[str, AnnotatedImages]) -> list[str]:
    """Return warnings about images that need much memory for scoring, which sorts all their pixels.

    Args:
        scored: Images by split.
    """
    found = []
    for data in scored.values():
        largest = int(data.sizes.argmax())
        needed = SCORING_BYTES * int(data.sizes[largest])
        if needed > MUCH_MEMORY:
            found.append(
                f"{data.name}: scoring {data.image_ids[largest]} ({data.sizes[largest] / 1e6:,.0f} million pixels) "
                f"needs about {needed / 2**30:.0f} GiB of memory; cut it into pieces if you have less"
            )
    return found


def check_metric(validation: AnnotatedImages, metric: str) -> None:
    """Check that the validation images define the metric that selects the best model.

    Args:
        validation: Validation images.
        metric: Name of the metric.

    Raises:
        UserError: The validation images have no pixel of any class.
    """
    if metric != "loss" and not any(there.any() for there in validation.class_presence().values()):
        raise UserError(
            f"{validation.name}: the validation images have no pixel of any class, so {metric} cannot select the best "
            "model; annotate some of them, or give --metric-for-best-model loss"
        )


def crop_notes(train: AnnotatedSplit, shapes: Sequence[tuple[int, int]], *, size: int, image_size: int) -> list[str]:
    """Return warnings about the training images of a run.

    Args:
        train: Training images.
        shapes: Height and width of each image in pixels.
        size: Size of the crops in pixels.
        image_size: Image size of the model in pixels.
    """
    found = [
        f"no training image of the sample shows {name}; the model cannot learn it"
        for name, there in train.data.class_presence().items()
        if not there.any()
    ]
    if size < image_size:
        found.append(f"crops of {size} instead of {image_size} pixels, because no training image is larger")
    small = [image for image, shape in zip(train.data.image_ids, shapes, strict=True) if min(shape) < size]
    if small:
        found.append(
            f"{len(small):,} of {len(shapes):,} training images are smaller than a crop and padded by reflection, "
            f"such as {small[0]}; the padding is ignored"
        )
    if again := len(train.items) - train.items.cached:
        found.append(
            f"{again:,} of {len(train.items):,} training images exceed the cache of {CACHE_BYTES >> 20:,} MiB and are "
            "read again for every crop; cut large fields into pieces if this is slow"
        )
    return found
