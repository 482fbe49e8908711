"""Figures of a data set: crops of each class, and a histogram of their intensities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from stedfm_hf.data.publishing.preview import Sample
from stedfm_hf.reports import label_colours, save_figure, show_image, style
from stedfm_hf.runs import atomic_path

CONTACT_SHEET, HISTOGRAM = "contact_sheet", "histogram"
_MAX_CURVES = 8
_MAX_CLASSES = 48
_MAX_ROWS = 10
"""Largest number of classes with a row of crops each; with more classes, each has one crop."""
_COLUMNS = 6
_PANEL = 1.2
"""Width of a crop, in inches."""
_BINS = 32


def write_figures(folder: Path, record: dict[str, Any], samples: Sequence[Sample]) -> list[Path]:
    """Write the figures `contact_sheet` and `histogram` as PNG and SVG.

    Args:
        folder: Folder to write, created if it does not exist.
        record: Result of `to_json`.
        samples: Crops, from `samples`.

    Returns:
        Paths of the PNG files.
    """
    sheet = save_figure(contact_sheet(samples, tuple(record["labels"])), folder, CONTACT_SHEET)
    # The colour map has 256 colours, so a palette has the same colours in a third of the bytes.
    with Image.open(sheet) as image:
        with_palette = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with atomic_path(sheet) as temporary:
        with_palette.save(temporary, format="PNG", optimize=True)
    return [sheet, save_figure(intensity_histogram(record), folder, HISTOGRAM)]


def contact_sheet(samples: Sequence[Sample], labels: Sequence[str]) -> Figure:
    """Plot crops in a grid: one row for each class, or one crop of each class if there are many classes.

    Args:
        samples: Crops; the first ones of each class are plotted.
        labels: Names of the classes in their order.
    """
    rows, one_each = _rows_of_samples(samples, labels), len(labels) > _MAX_ROWS
    columns = max(map(len, rows), default=1)
    with style():
        height = _PANEL + (0.22 if any(sample.label for row in rows for sample in row) else 0.02)
        spacing = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
        figure = Figure(figsize=(_PANEL * columns + 0.1, height * len(rows) + 0.1), layout=spacing)
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for axes_of_row, row in zip(axes, rows, strict=True):
            for column, axis in enumerate(axes_of_row):
                if column >= len(row):
                    axis.set_axis_off()
                    continue
                sample = row[column]
                size = sample.pixel_size_nm
                square = size is not None and abs(size[0] - size[1]) <= 0.01 * max(size)
                show_image(axis, sample.image, limits=(0, 255), pixel_size_nm=size[1] if size and square else None)
                if sample.label is not None and (column == 0 or one_each):
                    axis.set_title(_shorten(sample.label, 16 if one_each else 60), loc="left", fontsize=8, pad=3)
    return figure


def _rows_of_samples(samples: Sequence[Sample], labels: Sequence[str]) -> list[list[Sample]]:
    """Arrange crops in rows of up to `_COLUMNS`: one row for each class, and a last one for crops without a label.

    If there are many classes, each has one crop. If no crop has a label, up to four rows are filled.
    """
    by_label: defaultdict[str | None, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_label[sample.label].append(sample)
    present = [label for label in (*labels, None) if label in by_label]
    if present == [None]:
        return _split_into_rows(by_label[None][: 4 * _COLUMNS])
    if len(labels) > _MAX_ROWS:
        return _split_into_rows([by_label[label][0] for label in present[:_MAX_CLASSES]])
    return [by_label[label][:_COLUMNS] for label in present]


def _split_into_rows(samples: list[Sample]) -> list[list[Sample]]:
    return [samples[start : start + _COLUMNS] for start in range(0, len(samples), _COLUMNS)]


def _shorten(label: str, limit: int) -> str:
    """Shorten a label in the middle, because class names often differ at their ends, and escape it for matplotlib."""
    half = limit // 2
    text = label if len(label) <= limit else f"{label[: half - 1]}…{label[-half:]}"
    return text.replace("$", r"\$")  # a dollar sign would start a formula


def intensity_histogram(record: dict[str, Any]) -> Figure:
    """Plot the histogram of the scaled intensities, with one curve for each of up to 8 classes.

    Args:
        record: Result of `to_json`.
    """
    curves: dict[str, list[int]] = record["intensity"]["by_label"]
    if not 1 < len(curves) <= _MAX_CURVES:
        curves = {"all crops": record["intensity"]["histogram"]}
    colours = label_colours(curves)
    with style():
        figure = Figure(figsize=(5.6, 3.0), layout="constrained")
        axis = figure.subplots()
        for name, levels in curves.items():
            counts = np.asarray(levels, np.float64).reshape(_BINS, -1).sum(axis=1)
            fractions = counts / max(1.0, counts.sum())
            centres = (np.arange(_BINS) + 0.5) / _BINS
            # With markers, because a bin between two empty ones has no line.
            positive = np.where(fractions > 0, fractions, np.nan)
            axis.plot(centres, positive, ".-", markersize=4.5, color=colours[name], label=_shorten(name, 28))
        axis.set(xlim=(0.0, 1.0), yscale="log", xlabel="intensity, scaled to [0, 1]")
        axis.set_ylabel(f"fraction of pixels per bin ({_BINS} bins)")
        if len(curves) > 1:
            axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8)
    return figure
