"""Pictures of a data set: crops of every class, and the histogram of their intensities."""

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
_MOST_CURVES = 8
_MOST_CLASSES = 48
_ROWS_OF_CLASSES = 10
"""Up to so many classes have a row of crops each, more than that one crop each."""
_COLUMNS = 6
_PANEL = 1.2
"""Width of a crop, in inches."""
_BINS = 32


def write_figures(folder: Path, record: dict[str, Any], samples: Sequence[Sample]) -> list[Path]:
    """Writes `contact_sheet` and `histogram` into a folder, PNG and SVG.

    Args:
        folder: made if missing.
        record: of :meth:`stedfm_hf.data.publishing.statistics.Statistics.to_json`.
        samples: crops to choose from, of :meth:`stedfm_hf.data.publishing.preview.Preview.samples`.

    Returns:
        The PNG files.
    """
    sheet = save_figure(contact_sheet(samples, tuple(record["labels"])), folder, CONTACT_SHEET)
    # The colour map has 256 colours: a palette shows them as well in a third of the bytes.
    with Image.open(sheet) as picture:
        fewer_colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with atomic_path(sheet) as temporary:
        fewer_colours.save(temporary, format="PNG", optimize=True)
    return [sheet, save_figure(intensity_histogram(record), folder, HISTOGRAM)]


def contact_sheet(samples: Sequence[Sample], labels: Sequence[str]) -> Figure:
    """Crops side by side: a row for every class, or one crop of each where there are many.

    Args:
        samples: crops to choose from; the first ones of each class are taken.
        labels: names of the classes, in their order.
    """
    rows, one_each = _rows_of_samples(samples, labels), len(labels) > _ROWS_OF_CLASSES
    columns = max(map(len, rows), default=1)
    with style():
        height = _PANEL + (0.22 if any(sample.label for row in rows for sample in row) else 0.02)
        spacing = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
        figure = Figure(figsize=(_PANEL * columns + 0.1, height * len(rows) + 0.1), layout=spacing)
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for line, row in zip(axes, rows, strict=True):
            for place, axis in enumerate(line):
                if place >= len(row):
                    axis.set_axis_off()
                    continue
                sample = row[place]
                size = sample.pixel_size_nm
                square = size is not None and abs(size[0] - size[1]) <= 0.01 * max(size)
                show_image(axis, sample.image, limits=(0, 255), pixel_size_nm=size[1] if size and square else None)
                if sample.label is not None and (place == 0 or one_each):
                    axis.set_title(_shortened(sample.label, 16 if one_each else 60), loc="left", fontsize=8, pad=3)
    return figure


def _rows_of_samples(samples: Sequence[Sample], labels: Sequence[str]) -> list[list[Sample]]:
    of_label: defaultdict[str | None, list[Sample]] = defaultdict(list)
    for sample in samples:
        of_label[sample.label].append(sample)
    present = [label for label in (*labels, None) if label in of_label]
    if present == [None]:
        return _lines(of_label[None][: 4 * _COLUMNS])
    if len(labels) > _ROWS_OF_CLASSES:
        return _lines([of_label[label][0] for label in present[:_MOST_CLASSES]])
    return [of_label[label][:_COLUMNS] for label in present]


def _lines(samples: list[Sample]) -> list[list[Sample]]:
    return [samples[start : start + _COLUMNS] for start in range(0, len(samples), _COLUMNS)]


def _shortened(label: str, most: int) -> str:
    # In the middle, since names of classes often differ at their ends. A dollar sign would begin mathematics.
    half = most // 2
    text = label if len(label) <= most else f"{label[: half - 1]}…{label[-half:]}"
    return text.replace("$", r"\$")


def intensity_histogram(record: dict[str, Any]) -> Figure:
    """Share of the pixels at every scaled intensity, a curve for each class where there are a few of them.

    Args:
        record: of :meth:`stedfm_hf.data.publishing.statistics.Statistics.to_json`.
    """
    curves: dict[str, list[int]] = record["intensity"]["by_label"]
    if not 1 < len(curves) <= _MOST_CURVES:
        curves = {"all crops": record["intensity"]["histogram"]}
    colours = label_colours(curves)
    with style():
        figure = Figure(figsize=(5.6, 3.0), layout="constrained")
        axis = figure.subplots()
        for name, levels in curves.items():
            counts = np.asarray(levels, np.float64).reshape(_BINS, -1).sum(axis=1)
            share = counts / max(1.0, counts.sum())
            middles = (np.arange(_BINS) + 0.5) / _BINS
            # Dots as well: a level between two empty ones has no line.
            known = np.where(share > 0, share, np.nan)
            axis.plot(middles, known, ".-", markersize=4.5, color=colours[name], label=_shortened(name, 28))
        axis.set(xlim=(0.0, 1.0), yscale="log", xlabel="intensity, scaled to 0 to 1")
        axis.set_ylabel(f"share of the pixels, {_BINS} bins")
        if len(curves) > 1:
            axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8)
    return figure
