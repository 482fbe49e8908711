"""Splits of annotated images that keep every source image on one side, and what they lack (ours)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stedfm_hf.evaluation.annotated.images import AnnotatedImages
from stedfm_hf.evaluation.labelled import LabelledImages, splits
from stedfm_hf.images import StedImage


def split_by_source(data: AnnotatedImages, shares: Mapping[str, float], seed: int) -> dict[str, AnnotatedImages]:
    """Deals the source images out to splits, the images of each class for themselves as far as their sources allow.

    An image counts as one of the class that has most of its pixels, measured by how many that class has in all; see
    :func:`stedfm_hf.evaluation.labelled.split_by_source`.

    Args:
        data: what to split.
        shares: share of the images for every split; they are scaled to sum to 1.
        seed: of the order.

    Raises:
        UserError: a share is not positive, or there are fewer sources than splits.

    Example:
        >>> from stedfm_hf.evaluation.annotated.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 4, [np.eye(4, dtype=np.uint8)] * 4, sources=list("aabb"))
        >>> parts = split_by_source(data, {"train": 0.5, "test": 0.5}, seed=0)
        >>> [len(set(part.sources.tolist())) for part in parts.values()]
        [1, 1]
    """
    parts = splits.split_by_source(_as_labelled(data), shares, seed)
    return {name: data.take(part.rows) for name, part in parts.items()}


def check_no_leakage(parts: Mapping[str, AnnotatedImages]) -> None:
    """Refuses splits of which one source image is on two sides.

    Raises:
        UserError: names such a source and the splits it is in.
    """
    splits.check_no_leakage({name: _as_labelled(data) for name, data in parts.items()})


def class_warnings(parts: Mapping[str, AnnotatedImages]) -> list[str]:
    """What a user should know of the splits before training: classes that have no pixel in one of them.

    Example:
        >>> from stedfm_hf.evaluation.annotated.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)], [np.eye(4, dtype=np.uint8)], classes=["rings", "fibres"])
        >>> class_warnings({"train": data})
        ['d: no pixel of class fibres is in train: it cannot be learned']
    """
    means = {"train": "it cannot be learned", "validation": "nothing is chosen by it", "test": "it is not scored"}
    found = []
    for split, data in parts.items():
        for name in [each for each, pixels in data.counts().items() if not pixels]:
            elsewhere = [other for other, part in parts.items() if other != split and part.counts().get(name)]
            there = f", but there are some in {' and '.join(elsewhere)}" if elsewhere else ""
            meaning = means.get(split, "it can be neither learned nor scored")
            found.append(f"{data.name}: no pixel of class {name} is in {split}{there}: {meaning}")
    return found


def _as_labelled(data: AnnotatedImages) -> LabelledImages:
    """The images with the class that each mostly shows, numbered by their rows in `data`."""
    shares = data.pixels / np.maximum(data.pixels.sum(axis=0), 1)
    if data.background is not None:
        shares[:, data.background] = 0
    shown = np.where(shares.any(axis=1), shares.argmax(axis=1), 0)
    # A stratum of its own for images without annotation, where there is no background to count them to.
    empty = ~shares.any(axis=1)
    nothing = len(data.classes) if data.background is None else data.background
    labels = np.where(empty, nothing, shown).astype(np.int64)
    return LabelledImages(
        name=data.name,
        fingerprint=data.fingerprint,
        classes=(*data.classes, "none"),
        labels=labels,
        sources=data.sources,
        places=data.places,
        reads=_no_image,
        rows=np.arange(len(data)),
    )


def _no_image(number: int) -> StedImage:
    raise NotImplementedError("only the labels are asked for")
