"""Report of measured walks: each attribute along the direction, along random directions, and in real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from stedfm_hf.generation.following import slope_of, verdict
from stedfm_hf.generation.measured import REAL, MeasuredWalks, largest_change
from stedfm_hf.generation.measures import Change
from stedfm_hf.reports.figures import MUTED, PALETTE, label_colours, save_figure, shortened, style
from stedfm_hf.reports.html import ReportFigure, Section, Table, write_page

COLUMNS = 4
TITLES = {"resolution_nm": "resolution, nm", "snr": "signal-to-noise ratio", "objects": "bright spots"}


def write_measure_report(
    folder: Path,
    measured: MeasuredWalks,
    changes: Sequence[Change],
    random: Mapping[str, Sequence[Change]],
    real: Mapping[str, np.ndarray],
) -> Path:
    """Write `report.html` and `figures/`.

    Args:
        folder: Folder to write to.
        measured: Measured images of the walks.
        changes: Change of each attribute along the direction.
        random: The same along each random direction, by name; empty without.
        real: Attributes (n, k) of real images by class, in the order of the changes.

    Returns:
        Path of the page.
    """
    distances = measured.frame.loc[measured.frame["direction"] == measured.attribute]
    wanted = distances.groupby("step")["wanted"].mean().to_numpy(float)
    png = save_figure(_grid(wanted, changes, random, real), folder / "figures", "changes")
    caption = (
        f"Mean of each attribute along {measured.attribute} (blue) with its 95 % confidence interval over source "
        "images. " + ("Grey: each random direction, over walks of the same length. " if random else "")
    ) + ("Right: real images, median with 5th and 95th percentile." if real else "")
    walks, slope = changes[0].walks, slope_of(distances)
    said = [] if slope is None else [f"{verdict(slope)} The slope of reached over wanted distances is {slope:.2f}."]
    return write_page(
        folder / "report.html",
        title=f"What changes along {measured.attribute}",
        lead="Attributes measured in generated images. A direction shows an attribute only if the attribute changes "
        "steadily, and more than along random directions of the same length.",
        facts={
            "walks": str(walks),
            "steps": str(len(wanted)),
            "random directions": str(len(random[changes[0].name])) if random else "none",
        },
        sections=[
            Section("Attributes", said, [ReportFigure.from_png(png, "Attributes along the walks", caption)]),
            Section("Changes from the first step to the last", [], table=_table(changes, random)),
        ],
        footer="Generated images are not measurements: they show what the model has learnt.",
    )


def _grid(
    wanted: np.ndarray,
    changes: Sequence[Change],
    random: Mapping[str, Sequence[Change]],
    real: Mapping[str, np.ndarray],
) -> Figure:
    """Plot a panel for each attribute."""
    lines = -(-len(changes) // COLUMNS)
    colours = label_colours(["walks", *real])
    with style():
        figure = Figure(figsize=(2.6 * COLUMNS, 2.1 * lines), layout="constrained")
        for number, (axes, change) in enumerate(zip(figure.subplots(lines, COLUMNS).flat, changes, strict=False)):
            values = {name: measured[:, number] for name, measured in real.items()}
            _plot(axes, wanted, change, random.get(change.name, ()), values, colours)
        handles = [Line2D([], [], color=PALETTE[0], marker="o", markersize=3, label="along the direction")]
        if random:
            handles.append(Line2D([], [], color=MUTED, linewidth=1.0, label="along random directions"))
        for name in real:
            label = name if name == REAL else f"real {shortened(name)}"
            handles.append(Line2D([], [], color=colours[name], marker="s", markersize=4, linewidth=1.2, label=label))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), COLUMNS))
        for axes in figure.axes[len(changes) :]:
            axes.set_axis_off()
    return figure


def _plot(
    axes: Axes,
    wanted: np.ndarray,
    change: Change,
    random: Sequence[Change],
    real: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
) -> None:
    """Plot an attribute along the direction and along random directions, and its range in real images."""
    for other in random:
        axes.plot(wanted, other.mean, color=MUTED, linewidth=1.0, alpha=0.7)
    axes.fill_between(wanted, change.low, change.high, color=PALETTE[0], alpha=0.25, linewidth=0)
    axes.plot(wanted, change.mean, "o-", color=PALETTE[0], markersize=3)
    width = float(np.ptp(wanted)) or 1.0
    for place, (name, values) in enumerate(real.items(), start=1):
        known = values[np.isfinite(values)]
        if len(known):
            low, middle, high = np.percentile(known, (5, 50, 95))
            at = wanted.max() + 0.12 * width * place
            axes.errorbar(
                at,
                middle,
                [[middle - low], [high - middle]],
                fmt="s",
                color=colours[name],
                markersize=4,
                linewidth=1.2,
            )
    # The real images are next to the walks, at no distance.
    ends = float(wanted.min()), float(wanted.max())
    axes.set_xticks([tick for tick in MaxNLocator(4).tick_values(*ends) if ends[0] <= tick <= ends[1]])
    axes.set_title(TITLES.get(change.name, change.name.replace("_", " ")))
    axes.set_xlabel("signed distance", fontsize=8)


def _table(changes: Sequence[Change], random: Mapping[str, Sequence[Change]]) -> Table:
    """Return one row for each attribute."""
    header = ["attribute", "change", "95 % interval", "rank correlation", "walks"]
    header += ["largest along a random direction"] if random else []
    rows = []
    for each in changes:
        row = [
            TITLES.get(each.name, each.name.replace("_", " ")),
            f"{each.total:+.3g}",
            f"{each.total_low:.3g} to {each.total_high:.3g}",
            f"{each.rank_correlation:+.2f}",
            str(each.walks),
        ]
        if random:
            row.append(f"{largest_change(random[each.name]):.3g}")
        rows.append(row)
    return Table(header, rows, "The rank correlation (Spearman) is that of the step and the mean over the walks.")
