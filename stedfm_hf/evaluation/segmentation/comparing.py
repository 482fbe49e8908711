"""Whether one method segments better than another: both meet the same images, and sources are the units (ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stedfm_hf.evaluation.segmentation.scored import Scored
from stedfm_hf.metrics.statistics import bootstrap_interval, holm, permutation_test


def image_means(scored: Sequence[Scored], background: int | None, score: str = "iou") -> np.ndarray:
    """Mean of a score over the classes of each image (n,), the background left out; NaN where none has a value.

    Args:
        scored: of every image.
        background: number of the class that is left out; None: all count.
        score: which.
    """
    means = np.full(len(scored), np.nan)
    for number, each in enumerate(scored):
        values, undefined = each.pixels.values[score].copy(), each.pixels.undefined(score)
        if background is not None:
            undefined = undefined | (np.arange(len(values)) == background)
        if not undefined.all():
            means[number] = values[~undefined].mean()
    return means


def compare(
    scores: Mapping[str, Sequence[Scored]], models: Sequence[str], background: int | None
) -> list[dict[str, Any]]:
    """Mean IoU of each model against all others: paired, over source images, corrected together by Holm's method.

    Images of which a method has no score are left out of its pairs.

    Args:
        scores: of every method, of the same images in the same order.
        models: keys of those that are compared with all others; baselines are not compared with each other.
        background: number of the class that is left out.

    Returns:
        One row for each pair: `model, other, images, sources, difference, low, high, p, p_holm`. A pair with fewer
        than two sources in common has none.
    """
    means = {key: image_means(each, background) for key, each in scores.items()}
    rows: list[dict[str, Any]] = []
    for place, model in enumerate(models):
        for other in [key for key in scores if key not in models[: place + 1]]:
            both = np.isfinite(means[model]) & np.isfinite(means[other])
            sources = np.array([each.source for each in scores[model]])[both]
            if len(set(sources.tolist())) < 2:
                continue
            one, two = means[model][both], means[other][both]
            low, high = bootstrap_interval(one - two, sources)
            rows.append(
                {
                    "model": model,
                    "other": other,
                    "images": int(both.sum()),
                    "sources": len(set(sources.tolist())),
                    "difference": float((one - two).mean()),
                    "low": low,
                    "high": high,
                    "p": permutation_test(one, two, sources),
                }
            )
    corrected = holm([row["p"] for row in rows]).tolist() if rows else []
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]
