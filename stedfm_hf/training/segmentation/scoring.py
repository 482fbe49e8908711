"""Figures of maps: of one image, and of all images of a side (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stedfm_hf.evaluation.segmentation import ImageScores, flatten, planes_of, predicted_pixels, score_image, summarise
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.metrics.mask_scores import THRESHOLD, overlap
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.training.segmentation.feeding import Annotated

FIGURES = ("iou", "dice", "loss")
"""Figures the best model can be chosen by; the first one is, where nothing is said. Means over the classes."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What is known of the maps of an image.

    Args:
        scores: of every class.
        loss: of the maps, over the pixels that count.
    """

    scores: ImageScores
    loss: float


def score(
    maps: np.ndarray, item: Annotated, data: AnnotatedImages, network: StedFmForSemanticSegmentation, *, areas: bool
) -> Scored:
    """Scores the maps of an image.

    Args:
        maps: probabilities (L, H, W).
        item: the image and its target.
        data: says what targets are.
        network: has the loss.
        areas: whether areas under curves are computed, for which all pixels are sorted.
    """
    planes, counted = planes_of(item.target, data.target_type, len(data.classes))
    inside = counted if item.region is None else counted & item.region
    exclusive = data.target_type == "single_label"
    if areas:
        scores = score_image(maps, planes, inside, exclusive=exclusive)
    else:
        predicted = predicted_pixels(maps, exclusive=exclusive)
        iou, dice = overlap(predicted[:, inside], (planes > 0.5)[:, inside])
        scores = ImageScores({"iou": iou, "dice": dice}, "ours", THRESHOLD)
    loss = network.target_loss(
        network.logits_of(torch.from_numpy(maps)[None]),
        torch.from_numpy(item.target)[None],
        torch.from_numpy(inside)[None],
    )
    return Scored(scores, float(loss))


def figures_of(scored: Sequence[Scored], data: AnnotatedImages, *, intervals: bool) -> dict[str, Any]:
    """Means over images and classes, the background left out.

    Args:
        scored: of every image.
        data: of the same images.
        intervals: whether 95 % intervals over source images are computed.

    Returns:
        Of :func:`~stedfm_hf.evaluation.segmentation.flatten`, with `loss`; what is not defined is None.
    """
    left_out = [] if data.background is None else [data.classes[data.background]]
    options = {} if intervals else {"draws": 0}
    rows = summarise([each.scores for each in scored], data.classes, data.sources, left_out=left_out, **options)
    return {**flatten(rows), "loss": float(np.mean([each.loss for each in scored]))}
