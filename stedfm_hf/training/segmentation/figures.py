"""Figures of a segmenter: images with their masks and with what the model marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from scipy import ndimage

from stedfm_hf.evaluation.segmentation import planes_of, predicted_pixels
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.reports.figures import FIGURE_DPI, display_limits, label_colours, style
from stedfm_hf.runs import atomic_path
from stedfm_hf.training.figures import FIGURES
from stedfm_hf.training.segmentation.data import Annotated

EVALUATIONS = f"{FIGURES}/evaluations"
EXAMPLES = "examples"
TINT, OUTLINE, DIM = 0.35, 1.0, 0.35
"""Share of a colour inside a class and along its border; brightness outside a region."""
MOST_PIXELS = 512
"""Largest size of a panel in pixels: the middle of larger images is shown."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An image to plot.

    Attributes:
        title: Title of its row.
        item: Image and its target.
        maps: Probabilities (L, H, W) of the model.
    """

    title: str
    item: Annotated
    maps: np.ndarray


def draw_overlays(shown: Sequence[Shown], data: AnnotatedImages) -> Figure:
    """Plot a row for each image: as it is, with its mask, and with what the model marks.

    Args:
        shown: Images to plot, at least one.
        data: Images that they are some of; they say what targets are.
    """
    marked = {name: number for number, name in enumerate(data.classes) if number != data.background}
    colours = label_colours(marked)
    with style():
        figure = Figure(figsize=(8.4, 2.9 * len(shown) + 0.4), layout=ConstrainedLayoutEngine(h_pad=0.08))
        panels = figure.subplots(len(shown), 3, squeeze=False)
        for row, each in zip(panels, shown, strict=True):
            truth, counted = planes_of(each.item.target, data.target_type, len(data.classes))
            inside = counted if each.item.region is None else counted & each.item.region
            found = predicted_pixels(each.maps, exclusive=data.target_type == "single_label")
            place = _middle(inside.shape)
            image = _grey(each.item.image)[place]
            for axes, planes, title in zip(
                row, (None, truth > 0.5, found), (each.title, "annotated", "predicted"), strict=True
            ):
                picture = image if planes is None else _tinted(image, planes[:, *place], marked, colours)
                picture = np.where(inside[place][:, :, None], picture, DIM * picture)
                _panel(axes, picture, title)
        legend = figure.legend(
            handles=[Patch(color=colour, label=name) for name, colour in colours.items()],
            loc="outside lower center",
            ncols=min(len(colours), 5),
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        return figure


def save_overlays(folder: Path, name: str, shown: Sequence[Shown], data: AnnotatedImages) -> None:
    """Write `FOLDER/NAME.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    with style(), atomic_path(folder / f"{name}.png") as temporary:
        draw_overlays(shown, data).savefig(temporary, dpi=FIGURE_DPI, metadata={"Software": None})


def _middle(shape: tuple[int, ...]) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(0, (length - MOST_PIXELS) // 2), max(0, (length - MOST_PIXELS) // 2) + MOST_PIXELS)
        for length in shape
    )
    return rows, columns


def _grey(image: np.ndarray) -> np.ndarray:
    """The mean over channels, (H, W, 3) in [0, 1]."""
    mean = image.mean(axis=0)
    low, high = display_limits(mean)
    return np.repeat(np.clip((mean - low) / (high - low), 0, 1)[:, :, None], 3, axis=2)


def _tinted(
    image: np.ndarray, planes: np.ndarray, marked: Mapping[str, int], colours: Mapping[str, str]
) -> np.ndarray:
    picture = image.copy()
    for name, number in marked.items():
        inside = planes[number]
        border = inside & ~ndimage.binary_erosion(inside, border_value=1)
        cover = np.where(border, OUTLINE, TINT * inside)[:, :, None]
        picture += cover * (np.array(to_rgb(colours[name])) - picture)
    return picture


def _panel(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, parse_math=False)
