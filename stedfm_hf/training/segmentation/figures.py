"""Figures of a segmenter: images with the outlines of masks and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stedfm_hf.evaluation.report.segmentation.evaluation import Example
from stedfm_hf.evaluation.report.segmentation.figures import plot_examples
from stedfm_hf.evaluation.segmentation import planes_of, predicted_pixels
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.metrics.mask_scores import overlap
from stedfm_hf.reports.figures import FIGURE_DPI, style
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.figures import FIGURES
from stedfm_hf.training.segmentation.data import Annotated

EVALUATIONS = f"{FIGURES}/evaluations"
EXAMPLES = "examples"


@dataclass(frozen=True, eq=False)
class Overlay:
    """Image to plot.

    Attributes:
        title: Title of the row.
        item: Image and its target.
        maps: Predicted probabilities (L, H, W).
    """

    title: str
    item: Annotated
    maps: np.ndarray


def save_overlays(folder: Path, name: str, shown: Sequence[Overlay], data: AnnotatedImages) -> None:
    """Write `FOLDER/NAME.png`: a row for each image, without outlines, with its mask, and with the prediction.

    Args:
        folder: Folder of the figure.
        name: Name of the figure.
        shown: Images to plot.
        data: Images of the split, with the names of the classes.
    """
    marked = [number for number in range(len(data.classes)) if number != data.background]
    figure = plot_examples([_example(each, data, marked) for each in shown], [data.classes[each] for each in marked])
    folder.mkdir(parents=True, exist_ok=True)
    with style(), atomic_path(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, dpi=FIGURE_DPI, bbox_inches="tight", metadata={"Software": None})


def _example(shown: Overlay, data: AnnotatedImages, marked: Sequence[int]) -> Example:
    """Return the example of an image for `plot_examples`, with the mean IoU of the marked classes (NaN: undefined)."""
    item = shown.item
    planes, counted = planes_of(item.target, data.target_type, len(data.classes))
    inside = counted if item.region is None else counted & item.region
    truth = (planes > 0.5)[marked]
    found = predicted_pixels(shown.maps, exclusive=data.target_type == "single_label")[marked]
    ious = overlap(found[:, inside], truth[:, inside])[0]
    score = float(np.nanmean(ious)) if np.isfinite(ious).any() else float("nan")
    return Example("", shown.title, score, item.image.mean(axis=0), truth, {"predicted": found}, inside, None)
