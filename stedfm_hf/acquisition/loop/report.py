"""Report of `evaluate acquisition`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.acquisition.loop.comparison import BASELINES
from stedfm_hf.acquisition.loop.figures import plot_bleaching, plot_curve, plot_resolution
from stedfm_hf.acquisition.loop.power import PowerRow
from stedfm_hf.acquisition.loop.settings import REPORT, LoopSettings
from stedfm_hf.evaluation.report import sentences
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.reports.figures import save_figure
from stedfm_hf.reports.html import ReportFigure, Section, Table, write_page
from stedfm_hf.runs import counted

ENGINE = {"pysted": "pySTED", "builtin": "Gaussian beams (the engine builtin)"}
FOUND = "Raster and random take no overview, and use its part of the budget for more regions."
INTERVALS = "Intervals are 95 % intervals over seeds (Student's t)."
ONE_SEED = "there is only one seed, so no interval"
SWEEP = (
    "One simulated STED image at each power of the depletion beam: mean and range over seeds. Resolution is the "
    "Fourier ring correlation of two images of the same sample with independent noise. Crosses: loss of signal "
    "between confocal images before and after, in the brightest 5 % of the pixels of a third confocal image."
)
LIMITATIONS = (
    "All images are simulated; no instrument was used. Samples are sparse, flat and still. The classifiers know "
    "the true kind of each object in an acquired image, as if an expert looked at it.",
    "The encoder demo was trained on simulated images of the same kinds of structures (other samples, sharper "
    "images). Compare policies here, and measure on your images before you rely on a number.",
    "Time is that of the scans and of moving the stage. The time to compute scores is not included.",
)


def write_report(
    folder: Path,
    settings: LoopSettings,
    engine: str,
    encoder: Encoder,
    table: pa.Table,
    results: Mapping[str, Any],
    power: Sequence[PowerRow],
    scene: str,
) -> Path:
    """Write `report.html` and its figures.

    Args:
        folder: Folder to write to; `figures` holds the figure of each seed.
        settings: Settings of the command.
        engine: Physics.
        encoder: Encoder.
        table: Table of curves.
        results: Comparison of the policies.
        power: Resolution and bleaching.
        scene: Name of the figure of a seed to show.
    """
    figures = folder / "figures"
    by_dose = save_figure(
        plot_curve(table, "energy_mj", results["budget_mj"], "energy of the beams in mJ"), figures, "found_by_dose"
    )
    by_time = save_figure(plot_curve(table, "seconds", results["budget_s"], "time in s"), figures, "found_by_time")
    resolution = save_figure(plot_resolution(power), figures, "resolution")
    bleaching = save_figure(plot_bleaching(power), figures, "bleaching")
    rows, objects = results["policies"], results["objects"]
    best = max(range(len(rows)), key=lambda number: rows[number]["at_dose"]["mean"])
    several = len(results["seeds"]) > 1
    bands = "; bands are 95 % intervals over seeds" if several else ""
    target = results["targets"][0].replace("_", " ")
    budget = counted(settings.regions, "region")
    loops = f"{counted(len(results['targets']), 'target')} and {counted(len(results['seeds']), 'seed')}"
    sections = [
        Section(
            "Structures found",
            [
                f"Each policy may use the energy and the time of one overview and of {budget}. {FOUND} Values are "
                f"means over {loops}.{f' {INTERVALS}' if several else ''}",
            ],
            [
                ReportFigure.from_png(by_dose, "Objects found by each policy against the energy of the beams"),
                ReportFigure.from_png(
                    by_time,
                    "Objects found by each policy against time",
                    f"Objects found against dose and time{bands}. Dotted: the budget. Lines of the first policies are "
                    "wider, so that equal ones stay visible.",
                ),
            ],
            _policy_table(rows, objects, best),
        ),
        Section(
            "Each target",
            [f"Objects found of {objects:g} at the same dose, mean over the seeds."],
            table=_target_table(rows, results["targets"], best),
        ),
        Section(
            "One search",
            [
                f"The search for {target} in the sample of seed {results['seeds'][0]}. Numbers are the order of the "
                "regions; in green ones an object was found. Bright patches have a high score; that of classifiers is "
                "the one after the last region.",
            ],
            [
                ReportFigure.from_png(
                    figures / f"{scene}.png", f"Regions of each policy in the search for {target}", ""
                )
            ],
        ),
        Section(
            "Resolution and bleaching",
            [
                SWEEP,
                f"The search uses {settings.depletion_mw:g} mW in regions, and {settings.overview_depletion_mw:g} mW "
                "in the overview.",
            ],
            [
                ReportFigure.from_png(resolution, "Resolution against the power of the depletion beam"),
                ReportFigure.from_png(bleaching, "Bleaching against the power of the depletion beam"),
            ],
            _power_table(power),
        ),
        Section(
            "Limitations",
            LIMITATIONS,
        ),
    ]
    return write_page(
        folder / REPORT,
        title="Simulated acquisition: which regions to image next",
        lead=" ".join([*sentences.limitations([] if several else [ONE_SEED], simulated=True), _lead(results)]),
        facts={
            "model": encoder.name.partition(" (")[0],
            "physics": ENGINE[engine],
            "seeds": f"{len(results['seeds'])} ({', '.join(map(str, results['seeds']))})",
            "regions": str(settings.regions),
            "budget": f"{results['budget_mj']:.3g} mJ, {results['budget_s']:.3g} s",
            "overview": "–"
            if results["overview_mj"] is None
            else f"{results['overview_mj']:.3g} mJ, {results['overview_s']:.3g} s",
        },
        sections=sections,
        footer="All images are simulated.",
    )


def _lead(results: Mapping[str, Any]) -> str:
    """Name the policies that found most, and compare one of them with the baselines."""
    rows = results["policies"]
    found = [each["at_dose"]["mean"] for each in rows]
    first = [each["policy"] for each in rows if each["at_dose"]["mean"] == max(found)]
    row = rows[found.index(max(found))]
    if not max(found):
        return "At the same dose, no policy found an object."
    names = " and ".join([name for name in (", ".join(first[:-1]), first[-1]) if name])
    text = f"At the same dose, {names} found most: {max(found):.1f} of {results['objects']:g} objects"
    if len(first) > 1:
        return f"{text} each."
    compared = [
        f"{row[key]['ratio']:.1f} times as many as {name}"
        for name in BASELINES
        if (key := f"over_{name}") in row and row[key]["ratio"] is not None
    ]
    return f"{text}, {' and '.join(compared)}." if compared else f"{text}."


def _policy_table(rows: Sequence[Mapping[str, Any]], objects: float, best: int) -> Table:
    """List the policies."""
    head = ["policy", f"found of {objects:g}", "in the same time", "times random", "more than intensity", "bleached"]
    cells = []
    for row in rows:
        ratio = row.get("over_random", {}).get("ratio")
        more = row.get("over_intensity")
        cells.append(
            [
                row["policy"],
                f"{row['at_dose']['mean']:.2f}{_range(row['at_dose'])}",
                f"{row['in_time']['mean']:.2f}",
                "–" if ratio is None else f"{ratio:.1f}",
                "–" if more is None else f"{more['mean']:+.2f}{_range(more)}",
                f"{100 * row['bleached']:.1f} %",
            ]
        )
    brackets = "; in brackets, 95 % intervals" if any("(" in cell[1] for cell in cells) else ""
    note = f"At the same dose, unless in the same time{brackets}. Bleached: fraction of all molecules."
    return Table(head, cells, note, best)


def _target_table(rows: Sequence[Mapping[str, Any]], targets: Sequence[str], best: int) -> Table:
    """List the policies for each target."""
    cells = [[row["policy"], *(f"{row['by_target'][name]:.1f}" for name in targets)] for row in rows]
    return Table(["policy", *(name.replace("_", " ") for name in targets)], cells, "", best)


def _power_table(power: Sequence[PowerRow]) -> Table:
    """List the means over structures and seeds."""
    cells = []
    for at in sorted({each.depletion_mw for each in power}):
        own = [each for each in power if each.depletion_mw == at]
        known = [each.resolution_nm for each in own if np.isfinite(each.resolution_nm)]
        cells.append(
            [
                f"{at:g} mW",
                f"{np.mean(known):.0f} nm" if known else "–",
                f"{100 * np.mean([each.bleached for each in own]):.1f} %",
                f"{100 * np.mean([each.signal_loss for each in own]):.1f} %",
                f"{np.mean([each.energy_mj for each in own]):.3g} mJ",
            ]
        )
    head = ["depletion power", "resolution", "molecules bleached", "loss of confocal signal", "energy of the image"]
    return Table(head, cells, "Mean over the structures and seeds.")


def _range(values: Mapping[str, Any]) -> str:
    """Return the interval in brackets; nothing for a single seed."""
    return "" if values["low"] is None else f" ({values['low']:.2f} to {values['high']:.2f})"
