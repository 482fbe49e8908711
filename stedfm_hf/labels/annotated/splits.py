"""What splits of annotated images lack (ours)."""

from __future__ import annotations

from collections.abc import Mapping

from stedfm_hf.labels.annotated.images import AnnotatedImages

_FALSE_ONLY = "only false marks of it count"


def class_warnings(parts: Mapping[str, AnnotatedImages]) -> list[str]:
    """What a user should know of the splits before training: classes that have no pixel in one of them.

    Example:
        >>> from stedfm_hf.labels.annotated.images import from_arrays
        >>> import numpy as np
        >>> data = from_arrays("d", [np.eye(4)], [np.eye(4, dtype=np.uint8)], classes=["rings", "fibres"])
        >>> class_warnings({"train": data})
        ['d: no pixel of fibres is in train: it cannot be learned']
    """
    means = {"train": "it cannot be learned", "validation": _FALSE_ONLY, "test": _FALSE_ONLY}
    found = []
    for split, data in parts.items():
        for name in [each for each, pixels in data.counts().items() if not pixels]:
            elsewhere = [other for other, part in parts.items() if other != split and part.counts().get(name)]
            there = f", but there are some in {' and '.join(elsewhere)}" if elsewhere else ""
            meaning = means.get(split, "it can be neither learned nor scored")
            found.append(f"{data.name}: no pixel of {name} is in {split}{there}: {meaning}")
    return found
