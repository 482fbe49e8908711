"""Report of `evaluate weights`: distances of all pairs of models, along the layers and as cumulative curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stedfm_hf.evaluation.report.cells import NONE, nonbreaking
from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.evaluation.report.files import PAGE, RESULTS, finite, write_table
from stedfm_hf.evaluation.report.sections import footer, method_section
from stedfm_hf.metrics.weight_distances import METRICS, area_below_curve, depth
from stedfm_hf.reports import ReportFigure, Section, Table, write_page
from stedfm_hf.reports.figures import GRID, label_colours, save_figure, shortened, style
from stedfm_hf.runs import write_json

FILES = ("distances.parquet", "figures")
"""Other files of `evaluate weights`."""
_IN_LEGEND = 15
"""Largest number of pairs in a legend."""
_TITLES = {"wasserstein": "Wasserstein distance", "cosine": "cosine distance"}
_PROTOCOL = (
    "Tensors of the encoders with the same name and shape are compared. The Wasserstein distance compares the "
    "distributions of the values of a tensor, in units of the weights. It ignores positions: it is 0 for permuted "
    "weights, and small for networks that were initialised in the same way. The cosine distance is 1 - the cosine "
    "similarity of the flattened tensors. It compares weights position by position, so that two networks that compute "
    "the same with other orders of their units have a distance of about 1. Neither shows whether predictions differ.",
    "The cumulative curve of a pair is the fraction of tensors whose distance is at most x. Its area from x = 0 to 1 "
    "is 1 for equal weights.",
)


@dataclass(frozen=True, eq=False)
class WeightsReport:
    """Results of `evaluate weights`.

    Attributes:
        methods: Models, and the untrained network.
        table: A row for each pair and tensor; see `stedfm_hf.evaluation.weights.compare_weights`.
        seed: Random seed of the untrained network.
        seconds: Duration of the comparison.
    """

    methods: Sequence[MethodInfo]
    table: pa.Table
    seed: int
    seconds: float

    def pairs(self) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
        """Yield the names of the models of each pair, and the rows of its tensors."""
        names = {each.key: each.name for each in self.methods}
        rows = self.table.to_pylist()
        for first, second in dict.fromkeys((row["first"], row["second"]) for row in rows):
            of_pair = [row for row in rows if (row["first"], row["second"]) == (first, second)]
            yield names[first], names[second], of_pair

    def summary(self) -> list[dict[str, Any]]:
        """Return the metrics of each pair; None if no tensor was compared."""
        found = []
        for first, second, rows in self.pairs():
            compared = [row for row in rows if row["reason"] is None]
            record: dict[str, Any] = {
                "first": first,
                "second": second,
                "tensors": len(compared),
                "values": sum(row["values"] for row in compared),
                "left_out": dict(Counter(_kind(row["reason"]) for row in rows if row["reason"] is not None)),
            }
            for metric in METRICS:
                distances = np.array([row[metric] for row in compared])
                record[metric] = (
                    {
                        "mean": float(distances.mean()),
                        "largest": float(distances.max()),
                        "area_below_curve": area_below_curve(distances),
                    }
                    if compared
                    else None
                )
            found.append(record)
        return found

    def record(self) -> dict[str, Any]:
        """Return all metrics as JSON data."""
        return {
            "command": "evaluate weights",
            "methods": [asdict(each) for each in self.methods],
            "pairs": self.summary(),
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
        }


def _kind(reason: str) -> str:
    """Return a reason without shapes."""
    return reason.partition(":")[0]


def write_weights_report(report: WeightsReport, folder: Path) -> None:
    """Write `results.json`, `distances.parquet`, `figures/` and `report.html`.

    Args:
        report: Results.
        folder: Folder to write into.
    """
    write_table(report.table, folder / "distances.parquet")
    with style():
        layers = save_figure(_layers(report), folder / "figures", "layers")
        curves = save_figure(_curves(report), folder / "figures", "curves")
    _write_page(report, layers, curves, folder / PAGE)
    write_json(folder / RESULTS, finite(report.record()))


def _lines(report: WeightsReport) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Yield the compared tensors and the style of the line of each pair, thinner lines on top of wider ones."""
    pairs = [(f"{shortened(first, 22)} – {shortened(second, 22)}", rows) for first, second, rows in report.pairs()]
    colours = label_colours(name for name, _ in pairs)
    for number, (name, rows) in enumerate(pairs):
        if compared := [row for row in rows if row["reason"] is None]:
            yield compared, {"label": name, "color": colours[name], "lw": 3.2 - 2.2 * number / len(pairs)}


def _layers(report: WeightsReport) -> Figure:
    """Plot the sum of the distances up to each layer, and its fraction of the total."""
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    tensors = {row["tensor"]: row["layer"] for row in report.table.to_pylist() if row["reason"] is None}
    layers = list(dict.fromkeys(tensors[name] for name in sorted(tensors, key=depth)))
    for row, metric in zip(grid, METRICS, strict=True):
        for compared, line in _lines(report):
            sums = np.array([sum(each[metric] for each in compared if each["layer"] == layer) for layer in layers])
            total = np.cumsum(sums)
            row[0].plot(total, marker="o", ms=3, **line)
            row[1].plot(total / total[-1] if total[-1] else total, marker="o", ms=3, **line)
        row[0].set_ylabel(f"{_TITLES[metric]},\nsum up to the layer")
        row[1].set_ylabel("fraction of the total")
    for axes in grid.flat:
        _grid(axes)
    for axes in grid[1]:
        axes.set_xticks(range(len(layers)), layers, rotation=90 if len(layers) > 8 else 0)
        axes.set_xlabel("layer")
    _legend(figure, grid[0, 0])
    return figure


def _curves(report: WeightsReport) -> Figure:
    """Plot the fraction of tensors whose distance is at most x."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    grid = figure.subplots(1, 2, sharey=True)
    for axes, metric in zip(grid, METRICS, strict=True):
        for compared, line in _lines(report):
            axes.ecdf([each[metric] for each in compared], **line)
        axes.set_xlabel(_TITLES[metric])
        axes.set_xlim(left=0)
        _grid(axes)
    grid[0].set_ylabel("fraction of tensors")
    _legend(figure, grid[0])
    return figure


def _grid(axes: Axes) -> None:
    """Add a grid behind the lines."""
    axes.grid(color=GRID, lw=0.7)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    """Add a legend of the first pairs below the panels."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles[:_IN_LEGEND],
        names[:_IN_LEGEND],
        loc="outside lower center",
        ncols=2 if len(names) > 1 else 1,
        fontsize=8,
    )


def _write_page(report: WeightsReport, layers: Path, curves: Path, path: Path) -> None:
    """Write the HTML page."""
    summary = report.summary()
    shown = f" The legend names the first {_IN_LEGEND} pairs." if len(summary) > _IN_LEGEND else ""
    text = list(_PROTOCOL)
    if any(each.key == "untrained" for each in report.methods):
        text.append(
            f"Untrained network: the architecture of the first model with random weights (seed {report.seed})."
        )
    sections = [
        Section("Pairs", table=_pairs(summary)),
        Section(
            "Along the layers",
            figures=[
                ReportFigure.from_png(
                    layers,
                    "Distances of all pairs of models, summed along the layers",
                    "Left: sum of the distances of all tensors up to the layer. Right: its fraction of the total. "
                    f"Steep parts are the layers in which two models differ most.{shown}",
                )
            ],
        ),
        Section(
            "Cumulative curves",
            figures=[
                ReportFigure.from_png(
                    curves,
                    "Cumulative curves of the distances of all pairs of models",
                    f"Fraction of tensors whose distance is at most x.{shown}",
                )
            ],
        ),
        *_left_out(summary),
        method_section(text, report.methods, "model"),
    ]
    write_page(
        path,
        title="Weights",
        lead=" ".join(_lead(summary)),
        facts={"models": str(len(report.methods)), "pairs": str(len(summary))},
        sections=sections,
        footer=footer(
            "evaluate weights",
            "the figures as PNG and SVG (figures), all metrics (results.json) and the distances of each tensor "
            "(distances.parquet)",
        ),
    )


def _lead(summary: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the main results as sentences."""
    compared = [each for each in summary if each["cosine"] is not None]
    for metric in METRICS:
        nearest = min(compared, key=lambda each: each[metric]["mean"])
        farthest = max(compared, key=lambda each: each[metric]["mean"])
        words = (
            f"{nearest['first']} and {nearest['second']} have a mean {_TITLES[metric]} of {_number(nearest, metric)}"
        )
        if len(compared) > 1:
            words += (
                f", the smallest; {farthest['first']} and {farthest['second']} have the largest, "
                f"{_number(farthest, metric)}"
            )
        yield f"{words}."


def _number(pair: dict[str, Any], metric: str, name: str = "mean") -> str:
    """Format a metric of a pair."""
    if pair[metric] is None:
        return NONE
    return f"{pair[metric][name]:.4f}" if name == "area_below_curve" else f"{pair[metric][name]:.3g}"


def _pairs(summary: Sequence[dict[str, Any]]) -> Table:
    """Return the table with a row for each pair."""
    header = ["pair", "tensors", "values"]
    header += [name for metric in METRICS for name in (_TITLES[metric].removesuffix(" distance"), "largest", "area")]
    rows = [
        [
            nonbreaking(f"{each['first']} – {each['second']}"),
            str(each["tensors"]),
            f"{each['values']:,}",
            *(_number(each, metric, name) for metric in METRICS for name in ("mean", "largest", "area_below_curve")),
        ]
        for each in summary
    ]
    caption = "Mean and largest distance over the tensors, and area below the cumulative curve from 0 to 1."
    return Table(header, rows, caption)


def _left_out(summary: Sequence[dict[str, Any]]) -> list[Section]:
    """Return the section of the tensors that were not compared, if there are any."""
    rows = [
        (nonbreaking(f"{each['first']} – {each['second']}"), reason, str(count))
        for each in summary
        for reason, count in each["left_out"].items()
    ]
    text = ["distances.parquet names each of them."]
    return [Section("Tensors left out", text, table=Table(("pair", "reason", "tensors"), rows))] if rows else []
