"""Report of `evaluate retrieval`: metrics as JSON, tables, a figure and an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stedfm_hf.evaluation.rankings import (
    ALL_OTHERS,
    NOT_TOUCHING,
    OTHER_IMAGES,
    OTHER_SOURCES,
    WITH_QUERY,
    Queries,
    Rankings,
    names_of,
)
from stedfm_hf.evaluation.report import sentences
from stedfm_hf.evaluation.report.cells import decimals, difference_cells, interval, nonbreaking, with_interval
from stedfm_hf.evaluation.report.content import ComparisonReport, SettingSummaries
from stedfm_hf.evaluation.report.files import PAGE, RESULTS, finite, write_table
from stedfm_hf.evaluation.report.sections import comparison_section, failed_section, method_section, write_report_page
from stedfm_hf.labels.splits import limitations_of
from stedfm_hf.reports import ReportFigure, Section, Table, label_colours, save_figure, style
from stedfm_hf.reports.figures import GRID, MUTED
from stedfm_hf.runs import write_json

FILES = ("results.parquet", "queries.parquet", "figures")
"""Files of the report, except `results.json` and `report.html`."""
SETTINGS = {
    OTHER_SOURCES: "Nothing of the query's source image is ranked: parts of one image resemble each other, regardless "
    "of their class.",
    ALL_OTHERS: "All images but the query are ranked, also those of its source image.",
    WITH_QUERY: "Reference protocol, for comparison with published results: the query is ranked with the others, as a "
    "hit, and a query for which all images are relevant scores 1.",
    OTHER_IMAGES: "The patches of all images but the query's are ranked, also those of its source image.",
    NOT_TOUCHING: "Reference protocol, for comparison with published results: all patches except the 3 x 3 around the "
    "query and the border of each image are ranked, also those of the query's image. A patch is relevant if any pixel "
    "of the 3 x 3 patches around it belongs to the class.",
}
"""Description of what is ranked."""


def metric_title(name: str) -> str:
    """Return the name of a metric in reports.

    Args:
        name: Name in tables.

    Example:
        >>> [metric_title(name) for name in ("aupr", "precision_at_5", "map_at_5")]
        ['mAP', 'precision@5', 'mAP@5']
    """
    known = {"aupr": "mAP", "auroc": "AUROC"}
    return known.get(name) or name.replace("_at_", "@").replace("map", "mAP")


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalReport(SettingSummaries, ComparisonReport[Any]):
    """Results of `evaluate retrieval`; train and test are the searched images. See `ComparisonReport`.

    Attributes:
        queries: Queries.
        rankings: Rankings of all methods.
        primary: Metric with tests.
        summary: Rows of `summarise_rankings`.
        comparisons: Rows of `compare_rankings`.
        protocol: Sentences on the protocol.
        baselines: Description of each baseline, by key.
    """

    queries: Queries
    rankings: Rankings
    primary: str
    summary: Sequence[dict[str, Any]]
    comparisons: Sequence[dict[str, Any]]
    protocol: Sequence[str]
    baselines: Mapping[str, str]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return names_of(self.rankings, self.settings["k"])

    @property
    def order(self) -> list[str]:
        """What is ranked; the first is reported first."""
        return list(dict.fromkeys(setting for _, setting in self.rankings))

    @property
    def shown(self) -> list[str]:
        """What is ranked, without that which has the same results as the first for all methods."""
        return [setting for setting in self.order if setting == self.order[0] or not self._is_same(setting)]

    def _is_same(self, setting: str) -> bool:
        return all(
            np.array_equal(values, self.rankings[each.key, self.order[0]].values[name], equal_nan=True)
            for each in self.methods
            for name, values in self.rankings[each.key, setting].values.items()
        )

    def notes(self) -> list[str]:
        """Return notes on the protocol and its limitations, one or two sentences each."""
        notes = super().notes()
        for row in self.summary:
            if row["method"] == self.methods[0].key and row["without_relevant"]:
                notes.append(
                    f"{row['without_relevant']} of {len(self.queries)} queries have no value ({row['setting']}), "
                    "because no ranked item is of their class."
                )
        return notes

    def data_record(self) -> dict[str, Any]:
        """Return facts on the images as JSON data."""
        return {
            "classes": list(self.queries.classes),
            "queries": len(self.queries),
            "simulated": self.test.simulated,
        }

    def results(self) -> dict[str, Any]:
        """Return the metrics as JSON data."""
        return {
            "primary_metric": self.primary,
            "metrics": self.metrics,
            "summary": list(self.summary),
            "comparisons": list(self.comparisons),
        }

    def results_table(self) -> pa.Table:
        """Return a table with one row for each method, setting and metric."""
        rows = [(row, name) for row in self.summary for name in self.metrics]
        columns: dict[str, Any] = {
            "method": [row["method"] for row, _ in rows],
            "name": [self.name(row["method"]) for row, _ in rows],
            "setting": [row["setting"] for row, _ in rows],
            "metric": [name for _, name in rows],
            "queries": [row["queries"] for row, _ in rows],
            "without_relevant": [row["without_relevant"] for row, _ in rows],
        }
        for column in ("mean", "low", "high", "macro"):
            columns[column] = pa.array([row[name][column] for row, name in rows], pa.float64())
        return pa.table(columns)

    def queries_table(self) -> pa.Table:
        """Return a table with one row for each method, setting and query; undefined metrics are null."""
        queries, count = self.queries, len(self.rankings)
        table: dict[str, Any] = {
            "method": np.repeat([method for method, _ in self.rankings], len(queries)),
            "setting": np.repeat([setting for _, setting in self.rankings], len(queries)),
            "image_id": np.tile(queries.image_ids, count),
            "source": np.tile(queries.sources, count),
            **{name: np.tile(values, count) for name, values in queries.positions.items()},
            "label": list(np.array(queries.classes, dtype=object)[queries.labels]) * count,
            "relevant": np.concatenate([each.relevant for each in self.rankings.values()]),
            "ranked": np.concatenate([each.candidates for each in self.rankings.values()]),
        }
        for name in self.metrics:
            values = np.concatenate([each.values[name] for each in self.rankings.values()])
            table[name] = pa.array(values, pa.float64(), mask=np.isnan(values))
        return pa.table(table)


def write_retrieval_report(report: RetrievalReport, folder: Path) -> None:
    """Write `results.json`, `results.parquet`, `queries.parquet`, `figures/` and `report.html`.

    Args:
        report: Results.
        folder: Folder to write into.
    """
    write_table(report.results_table(), folder / "results.parquet")
    write_table(report.queries_table(), folder / "queries.parquet")
    with style():
        figure = save_figure(_figure(report), folder / "figures", "retrieval")
    _write_page(report, figure, folder / PAGE)
    write_json(folder / RESULTS, finite(report.record()))


def _figure(report: RetrievalReport) -> Figure:
    """Plot the primary metric of all methods with intervals, for each setting."""
    figure = Figure(figsize=(6.4, 0.36 * len(report.methods) + 1.0))
    axes = figure.add_subplot()
    colours = label_colours(["model"])
    for number, setting in enumerate(report.shown):
        for place, each in enumerate(report.methods):
            row = report.row(each.key, setting)[report.primary]
            if row["mean"] is None:
                continue
            colour = colours["model"] if each.kind == "model" else MUTED
            y = place + 0.24 * (number - (len(report.shown) - 1) / 2)
            axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.4)
            fill = colour if number == 0 else "white"
            axes.plot([row["mean"]], [y], "o", color=colour, mfc=fill, ms=5, ls="none")
    axes.set_yticks(range(len(report.methods)), [each.name for each in report.methods])
    axes.set_ylim(len(report.methods) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel(f"{metric_title(report.primary)}, mean over queries and 95 % confidence interval")
    axes.grid(axis="x", color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    if len(report.shown) > 1:
        marks = [Line2D([], [], marker="o", ls="none", color=MUTED, mfc=fill) for fill in (MUTED, "white")]
        axes.legend(marks, report.shown, title="ranked", loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure


def _write_page(report: RetrievalReport, figure: Path, path: Path) -> None:
    """Write the HTML page."""
    sections = [_data(report), *_scores(report, figure), *_comparisons(report)]
    descriptions = sentences.baselines(report.methods, report.baselines)
    sections.append(method_section([*report.protocol, *descriptions], report.methods, "method"))
    sections += failed_section("Images that could not be read", report.failed)
    write_report_page(
        path,
        command=report.command,
        title="Retrieval",
        lead=_lead(report),
        test=report.test,
        splits={"searched": report.splits.facts()["test"]},
        facts={"queries": f"{len(report.queries):,}", "classes": str(len(report.queries.classes))},
        sections=sections,
        files="the figure as PNG and SVG (figures), all metrics (results.json, results.parquet) and the metrics of "
        "each query (queries.parquet)",
    )


def _lead(report: RetrievalReport) -> list[str]:
    """Return the main results as sentences."""
    limitations = limitations_of(report.test)
    lines = sentences.limitations(limitations, simulated=report.test.simulated)
    first, setting = report.methods[0], report.order[0]
    row = report.row(first.key, setting)[report.primary]
    title = metric_title(report.primary)
    if row["mean"] is None:
        lines.append("No query has a value, because no ranked item is of its class.")
        return lines
    lines.append(f"{first.name} reaches {title} {with_interval(row)}.")
    compared = report.comparisons_of(first.key, setting)
    if not limitations and (words := sentences.verdicts(compared, report.name)):
        lines.append(f"It is {words}.")
    return lines


def _data(report: RetrievalReport) -> Section:
    """Return the section on the images."""
    text = [*report.notes(), *[sentences.SIMULATED] * report.test.simulated]
    counts = np.bincount(report.queries.labels, minlength=len(report.queries.classes))
    rows = [(name, f"{count:,}") for name, count in zip(report.queries.classes, counts.tolist(), strict=True)]
    return Section("Data", text, table=Table(("class", "queries"), rows))


def _scores(report: RetrievalReport, figure: Path) -> list[Section]:
    """Return the sections with the scores of all methods."""
    title = metric_title(report.primary)
    others = [name for name in report.metrics if name != report.primary]
    header = ("method", title, "95 % CI", "mean over classes", *map(metric_title, others))
    sections = []
    for number, setting in enumerate(report.order):
        if setting not in report.shown:
            text = [SETTINGS[setting], "All results are the same as above."]
            sections.append(Section(f"Ranked: {setting}", text))
            continue
        rows = []
        for each in report.methods:
            row = report.row(each.key, setting)
            ends = row[report.primary]
            means = (decimals(row[name]["mean"]) for name in others)
            rows.append(
                (nonbreaking(each.name), decimals(ends["mean"]), interval(ends), decimals(ends["macro"]), *means)
            )
        caption = (
            f"Means over queries, and the mean {title} over classes. CI: 95 % confidence interval of the mean over "
            f"queries; the units are source images. {sentences.OVERLAPPING}"
        )
        alt = f"{title} of all models and baselines, with confidence intervals"
        figures = [ReportFigure.from_png(figure, alt)] if number == 0 else []
        table = Table(header, rows, caption, strong=0)
        sections.append(Section(f"Ranked: {setting}", [SETTINGS[setting]], figures, table))
    rows = [
        (nonbreaking(each.name), *map(decimals, report.row(each.key, report.order[0])["per_class"].values()))
        for each in report.methods
    ]
    caption = f"{title}, mean over the queries of a class; ranked: {report.order[0]}."
    sections.append(Section("Classes", table=Table(("method", *report.queries.classes), rows, caption, strong=0)))
    return sections


def _comparisons(report: RetrievalReport) -> list[Section]:
    """Return the section of the pairwise comparisons, if there are any."""
    if not report.comparisons:
        return []
    tests = sentences.permutation_tests("on the same queries", "the values of the two methods")
    return [
        comparison_section(
            report.comparisons,
            report.methods,
            header=("ranked", f"difference of {metric_title(report.primary)}", "95 % CI"),
            cells=lambda each: (each["setting"], *difference_cells(each)),
            text=f"{tests} Rankings of one data set share the ranked images, which the test does not take into "
            f"account. {sentences.NOT_SIGNIFICANT}",
            limited=bool(limitations_of(report.test)),
        )
    ]
