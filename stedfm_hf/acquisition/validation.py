"""How well a finder finds structures in images that it was not fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from stedfm_hf.acquisition.examples import BACKGROUND, Examples
from stedfm_hf.acquisition.finders import Finder

FOLDS = 5
"""Largest number of folds."""


def cross_validate(examples: Examples, fit: Callable[[Examples], Finder]) -> dict[str, Any] | None:
    """Measure the average precision of the scores of patches, in folds of source images.

    Args:
        examples: Annotated patches; those without an annotation are not scored.
        fit: Function that fits a finder.

    Returns:
        Number of folds and of source images, and for each class the average precision and the fraction of its
        patches, which is that of chance. None for less than two source images with every class and background.
    """
    sources = np.unique(examples.sources)
    complete = [each for each in sources if _is_complete(examples.take(examples.sources == each))]
    if len(complete) < 2:
        return None
    folds = min(FOLDS, len(complete))
    # Complete images are spread over the folds first, so that every fit sees every class.
    order = {each: number % folds for number, each in enumerate([*complete, *np.setdiff1d(sources, complete)])}
    fold = np.array([order[each] for each in examples.sources])
    known = examples.labels >= BACKGROUND
    scores = np.zeros((len(examples), len(examples.classes)), np.float32)
    for number in range(folds):
        finder = fit(examples.take(fold != number))
        scores[known & (fold == number)] = finder.scores(examples.tokens[known & (fold == number)])
    truth = {name: examples.labels[known] == number for number, name in enumerate(examples.classes, 1)}
    return {
        "folds": folds,
        "source_images": len(sources),
        "average_precision": {
            name: float(average_precision_score(truth[name], scores[known, column]))
            for column, name in enumerate(examples.classes)
        },
        "fraction_of_patches": {name: float(each.mean()) for name, each in truth.items()},
    }


def _is_complete(examples: Examples) -> bool:
    return not examples.missing() and bool((examples.labels == BACKGROUND).any())
