"""Turn examples and counter-examples into one direction, and decide which items cannot be results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from stedfm_hf.discovery.index.opened import Index
from stedfm_hf.discovery.index.standardised import Standardiser
from stedfm_hf.discovery.search.queries import Example
from stedfm_hf.runs import UserError

MOST_TOKENS = 1000
"""Largest number of embeddings of an example that the linear model is fitted on."""


def uses_model(likes: Sequence[Example], unlikes: Sequence[Example]) -> bool:
    """Return whether the examples are enough for a linear model: two examples and a counter-example."""
    return len(likes) >= 2 and len(unlikes) >= 1


def direction(standardiser: Standardiser, likes: Sequence[Example], unlikes: Sequence[Example]) -> np.ndarray:
    """Return the direction to search for, in the standardised space.

    It is the mean of the examples minus the mean of the counter-examples, each of unit length. With two examples and a
    counter-example, it is that of a logistic regression on their embeddings, in which every example has the same
    weight and both classes together.

    Args:
        standardiser: Mean and standard deviation of the index.
        likes: Examples, at least one.
        unlikes: Counter-examples.

    Returns:
        Direction (D,) of unit length.

    Raises:
        UserError: If the examples and counter-examples cancel, or an example is the mean of the index.

    Example:
        >>> from types import SimpleNamespace
        >>> space = Standardiser(np.zeros(2), np.ones(2))
        >>> like = SimpleNamespace(embedding=np.array([3.0, 4.0]))
        >>> direction(space, [like], []).round(2).tolist()
        [0.6, 0.8]
    """
    if uses_model(likes, unlikes):
        found = _fitted(standardiser, likes, unlikes)
    else:
        found = standardiser.unit(np.stack([each.embedding for each in likes])).mean(axis=0)
        if unlikes:
            found = found - standardiser.unit(np.stack([each.embedding for each in unlikes])).mean(axis=0)
    norm = float(np.linalg.norm(found))
    if norm < 1e-9:
        reason = "the examples and counter-examples cancel each other" if unlikes else "the query is like all images"
        raise UserError(f"{reason}, so nothing is more similar than anything else; choose other examples")
    return found / norm


def _fitted(standardiser: Standardiser, likes: Sequence[Example], unlikes: Sequence[Example]) -> np.ndarray:
    """Fit a logistic regression that separates examples from counter-examples, and return its direction."""
    values, weights, classes = [], [], []
    for label, group in ((1, likes), (0, unlikes)):
        for each in group:
            some = np.linspace(0, len(each.tokens) - 1, min(len(each.tokens), MOST_TOKENS)).astype(np.int64)
            values.append(standardiser.unit(each.tokens[some]))
            weight = each.weights[some]
            # As many as there are examples, so that the penalty means the same for images and for patches.
            weights.append(weight / weight.sum() * (len(likes) + len(unlikes)) / 2 / len(group))
            classes.append(np.full(len(some), label))
    model = LogisticRegression(C=10.0, max_iter=1000)
    model.fit(np.concatenate(values), np.concatenate(classes), sample_weight=np.concatenate(weights))
    return model.coef_[0]


def excluded_items(index: Index, examples: Sequence[Example], exclude: str) -> np.ndarray:
    """Return the numbers of the items that are excluded as a whole.

    Args:
        index: Index.
        examples: Examples and counter-examples.
        exclude: `none`, `source` (items of the source images of the examples) or `condition` (items in their folders).

    Returns:
        Numbers of items: the images that are examples themselves (unless a region of them is the example in an index
        of patches), and those of `exclude`.

    Raises:
        UserError: If the items have no conditions, or that of an example is unknown.
    """
    found = {item for each in examples if each.is_whole or not index.patches for item in each.items}
    if exclude == "source":
        sources = {each.source for each in examples}
        found |= {number for number, source in enumerate(index.items["source"].to_pylist()) if source in sources}
    if exclude == "condition":
        known = set(index.labels) - {None}
        if not known:
            raise UserError("--exclude condition: the images of the index are not in folders of conditions")
        for each in examples:
            if each.condition not in known:
                raise UserError(
                    f"--exclude condition: {each.name} is in none of the folders of the index "
                    f"({', '.join(sorted(map(str, known)))}); use --exclude source, or give a path of the index"
                )
        conditions = {each.condition for each in examples}
        found |= {number for number, label in enumerate(index.labels) if label in conditions}
    return np.array(sorted(found), np.int64)
