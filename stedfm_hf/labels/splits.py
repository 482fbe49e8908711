"""Splits that keep every source image on one side, and draws of a few labelled images (ours).

Crops of one image resemble each other in everything, so that a crop whose neighbour was trained on is no test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.runs import UserError, counted

DEALT = {"train": 0.7, "validation": 0.15, "test": 0.15}
"""Shares of the source images of a data set without splits, where a model is trained on it and tested."""

Images = TypeVar("Images", bound=SourcedImages[Any])


def split_by_source(data: Images, shares: Mapping[str, float], seed: int) -> dict[str, Images]:
    """Deals the source images out to splits, each class (stratum) for itself as far as its sources allow.

    Sources are dealt in random order, the largest deviation first: each goes to the split that lacks most of the
    images of its class. A source whose crops are of several classes counts as one of its most frequent class. Every
    split gets a source of every class that has at least as many sources as there are splits.

    Args:
        data: what to split.
        shares: share of the images for every split; they are scaled to sum to 1.
        seed: of the order.

    Returns:
        The splits in the order of `shares`.

    Raises:
        UserError: a share is not positive, or there are fewer sources than splits.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 8, list("ab") * 4, sources=list("wwxxyyzz"))
        >>> parts = split_by_source(data, {"train": 0.5, "test": 0.5}, seed=0)
        >>> sorted({*parts["train"].sources} & {*parts["test"].sources}), len(parts["train"])
        ([], 4)
    """
    if not shares or min(shares.values()) <= 0:
        raise UserError(f"shares {dict(shares)} are no shares of a data set; give positive numbers")
    names, weights = list(shares), np.array(list(shares.values())) / sum(shares.values())
    members = defaultdict[str, list[int]](list)
    for number, source in enumerate(data.sources.tolist()):
        members[source].append(number)
    if len(members) < len(names):
        raise UserError(
            f"{data.name}: has {counted(len(members), 'source image')}, too few for the splits "
            f"{', '.join(names)}; crops of one image cannot be on two sides"
        )
    strata = data.strata
    groups = defaultdict[int, list[str]](list)
    for source in sorted(members):
        groups[Counter(strata[members[source]].tolist()).most_common(1)[0][0]].append(source)
    rng = np.random.default_rng([seed, 0])
    side: dict[str, int] = {}
    total = np.zeros(len(names))
    for stratum in sorted(groups):
        sources = [groups[stratum][place] for place in rng.permutation(len(groups[stratum]))]
        wanted = weights * sum(len(members[source]) for source in sources)
        got, empty = np.zeros(len(names)), set(range(len(names))) if len(sources) >= len(names) else set()
        for left, source in zip(range(len(sources), 0, -1), sources, strict=True):
            # The last sources of a class go where there is none of it yet; ties to where least is in all.
            allowed = sorted(empty) if left <= len(empty) else range(len(names))
            place = max(allowed, key=lambda number: (wanted[number] - got[number], -total[number], -number))
            side[source] = place
            empty.discard(place)
            got[place] += len(members[source])
            total[place] += len(members[source])
    _fill_empty(side, members, len(names))
    numbers = np.array([side[source] for source in data.sources.tolist()])
    return {name: data.take(np.flatnonzero(numbers == number)) for number, name in enumerate(names)}


def _fill_empty(side: dict[str, int], members: Mapping[str, list[int]], splits: int) -> None:
    """Gives a split that came out empty the smallest source of the one that has most sources."""
    for number in range(splits):
        held = Counter(side.values())
        if not held[number]:
            rich = max(held, key=lambda each: (held[each], -each))
            side[min((s for s in side if side[s] == rich), key=lambda s: (len(members[s]), s))] = number


def check_no_leakage(splits: Mapping[str, SourcedImages[Any]]) -> None:
    """Refuses splits of which one source image is on two sides.

    Raises:
        UserError: names such a source and the splits it is in.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 2, list("ab"), sources=["cell 1", "cell 1"])
        >>> try:
        ...     check_no_leakage({"train": data.take([0]), "test": data.take([1])})
        ... except UserError as error:
        ...     print(str(error).partition(";")[0])
        d: source image 'cell 1' is in train and in test
    """
    names = list(splits)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            shared = sorted({*splits[name].sources.tolist()} & {*splits[other].sources.tolist()})
            if shared:
                more = f", as are {len(shared) - 1} more" if len(shared) > 1 else ""
                raise UserError(
                    f"{splits[name].name}: source image {shared[0]!r} is in {name} and in {other}{more}; a test must "
                    "know nothing of the training: split the data set again, by source image"
                )
