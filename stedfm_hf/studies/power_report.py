"""Report of a power analysis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from stedfm_hf.reports.figures import GRID, INK, label_colours, save_figure, style
from stedfm_hf.reports.html import ReportFigure, Section, Table, write_page
from stedfm_hf.runs.files import atomic_path
from stedfm_hf.studies.power import TAU, PowerRow
from stedfm_hf.studies.settings import StudySimulateSettings
from stedfm_hf.studies.study import RANK, Study


def write_power(path: Path, rows: Sequence[PowerRow]) -> None:
    """Write the power of each size as Parquet."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist([dataclasses.asdict(each) for each in rows]), temporary)


def read_power(path: Path) -> list[PowerRow]:
    """Read a table that `write_power` wrote."""
    return [PowerRow(**row) for row in pq.read_table(path).to_pylist()]


def write_power_report(
    folder: Path, study: Study, settings: StudySimulateSettings, rows: Sequence[PowerRow], best: PowerRow | None
) -> Path:
    """Write `report.html` and `figures/`.

    Args:
        folder: Folder to write to.
        study: The study.
        settings: Settings of the command.
        rows: Power of each size.
        best: Recommended size, or None.

    Returns:
        Path of the page.
    """
    ranks = study.type == RANK
    unit = "images" if ranks else "trials"
    plots = [
        ("power", settings.power, "Fraction of the simulated studies that are significant, with its 95 % interval.")
    ]
    if ranks:
        plots.append(("rank correlation", TAU, "Mean rank correlation of found and planted strengths."))
    shown = [
        ReportFigure.from_png(
            save_figure(_figure(rows, unit, name, wanted), folder / "figures", name.replace(" ", "_")),
            f"{name.capitalize()} by number of participants",
            f"{caption} Dashed: {wanted:g}.",
        )
        for name, wanted, caption in plots
    ]
    wanted = f"a power of {settings.power:g}"
    if ranks and not settings.null:
        wanted += f", and a rank correlation of {TAU:g} in {100 * settings.power:g} % of the studies"
    lead = (
        f"None of these sizes reaches {wanted}. Add participants{'' if ranks else ' or trials'}."
        if best is None
        else f"{best.participants} participants with {best.trials} {unit} each reach {wanted}."
    )
    expected = ", ".join(f"{name} {value:g}" for name, value in study.expect.items()) or "none"
    head = ["participants", unit, "power", "95 % interval", "rank correlation", "order recovered"]
    table = [
        [
            str(each.participants),
            str(each.trials),
            _number(each.power),
            f"{each.low:.2f} to {each.high:.2f}" if np.isfinite(each.low) else "–",
            _number(each.tau),
            _number(each.recovered),
        ]
        for each in rows
    ]
    note = (
        "Rank correlation (Kendall) of found and planted preferences: mean over the simulated studies, and fraction "
        f"of them in which it is at least {TAU:g}."
    )
    assumed = (
        "Simulated raters have no preference: about the fraction alpha of the studies should be significant."
        if settings.null
        else f"Planted preferences: {expected}. They vary with a standard deviation of {settings.rater_sd:g} between "
        f"raters and {settings.image_sd:g} between images, in log odds."
    )
    return write_page(
        folder / "report.html",
        title=f"Power analysis: {study.title}",
        lead=lead,
        facts={
            "task": study.type,
            "simulated studies": str(settings.repeats),
            "participants": "–" if best is None else str(best.participants),
            unit: "–" if best is None else str(best.trials),
            "significance level": f"{settings.alpha:g}",
        },
        sections=[
            Section(
                "Power",
                [assumed],
                shown,
                Table(head, table, note, None if best is None else list(rows).index(best)),
            )
        ],
        footer="All answers are simulated.",
    )


def _figure(rows: Sequence[PowerRow], unit: str, name: str, wanted: float) -> Figure:
    """Plot the power or the rank correlation against the number of participants, with the wanted value."""
    sizes = sorted({each.trials for each in rows})
    colours = label_colours(map(str, sizes))
    with style():
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        for size in sizes:
            own = sorted((each for each in rows if each.trials == size), key=lambda each: each.participants)
            x, colour, label = [each.participants for each in own], colours[str(size)], f"{size} {unit}"
            y = np.array([each.power if name == "power" else each.tau for each in own])
            reach = None
            if name == "power":
                reach = np.abs(np.array([[each.low for each in own], [each.high for each in own]]) - y)
            axes.errorbar(x, y, reach, fmt="o-", color=colour, markersize=4, capsize=3, label=label)
        axes.axhline(wanted, color=INK, linewidth=0.9, linestyle="--")
        axes.set(xlabel="participants", ylabel=name, ylim=(0, 1.02))
        axes.set_xticks(sorted({each.participants for each in rows}))
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.legend(loc="lower right")
    return figure


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"
