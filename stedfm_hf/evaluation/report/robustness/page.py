"""HTML page of `evaluate robustness`, and all its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stedfm_hf.evaluation.report import sentences
from stedfm_hf.evaluation.report.cells import NONE, nonbreaking
from stedfm_hf.evaluation.report.files import PAGE, RESULTS, finite, write_table
from stedfm_hf.evaluation.report.page import BASELINE_SENTENCES
from stedfm_hf.evaluation.report.robustness.evaluation import Robustness, tolerance_text
from stedfm_hf.evaluation.report.robustness.figures import plot_curves, plot_examples
from stedfm_hf.evaluation.report.robustness.sections import (
    batch_sections,
    effect_section,
    number,
    readout_section,
    score_sections,
)
from stedfm_hf.evaluation.report.sections import failed_section, method_section, write_report_page
from stedfm_hf.labels.splits import limitations_of
from stedfm_hf.reports import ReportFigure, Section, Table, save_figure, style
from stedfm_hf.runs import counted, write_json

_NAMES = {"accuracy": "accuracy", "label_accuracy": "label accuracy", "r2": "R²", "pearson_r": "Pearson r"}


def write_robustness_report(report: Robustness, folder: Path) -> None:
    """Write `results.json`, the tables, `figures/` and `report.html`.

    Args:
        report: Results.
        folder: Folder to write into.
    """
    for name, table in report.tables().items():
        write_table(table, folder / name)
    figures: dict[str, Path] = {}
    with style():
        if report.families:
            figures["curves"] = save_figure(plot_curves(report), folder / "figures", "accuracy")
        for family in report.families:
            figures[family.name] = save_figure(
                plot_examples(report, family), folder / "figures", f"examples-{family.name}"
            )
    _write_page(report, figures, folder / PAGE)
    write_json(folder / RESULTS, finite(report.record()))


def _write_page(report: Robustness, figures: Mapping[str, Path], path: Path) -> None:
    """Write the HTML page."""
    sections = [Section("Data", [*report.notes(), *[sentences.SIMULATED] * report.test.simulated])]
    if report.families:
        sections += [_tolerances(report), _ranking(report), _curves(report, figures), _examples(report, figures)]
        sections.append(effect_section(report))
        if report.measured.scores:
            sections += score_sections(report)
        if any(family.ordered for family in report.families):
            sections.append(readout_section(report))
    sections += batch_sections(report)
    if report.families:
        sections.append(_definitions(report))
    descriptions = sentences.baselines(report.methods, BASELINE_SENTENCES)
    sections.append(method_section([_protocol(report), *descriptions], report.methods, "method"))
    sections += failed_section("Images that could not be read", report.failed)
    write_report_page(
        path,
        command=report.command,
        title="Robustness",
        lead=summary(report),
        test=report.test,
        splits=report.splits.facts(),
        facts={"classes": str(len(report.test.classes))} if report.test.classes else {},
        sections=sections,
        files="the figures as PNG and SVG (figures), all metrics (results.json) and the tables as Parquet files",
    )


def score(report: Robustness, value: float | None) -> str:
    """Format a score.

    Args:
        report: Results.
        value: Score, or None.
    """
    if value is None or value != value:
        return NONE
    return f"{100 * value:.1f}\u00a0%" if report.metric in ("accuracy", "label_accuracy") else f"{value:.3f}"


def points(report: Robustness, value: float | None) -> str:
    """Format a loss, in points for accuracies.

    Args:
        report: Results.
        value: Loss, or None.
    """
    if value is None or value != value:
        return NONE
    return f"{100 * value:+.1f}" if report.metric in ("accuracy", "label_accuracy") else f"{value:+.3f}"


def summary(report: Robustness) -> list[str]:
    """Return the main results as sentences.

    Args:
        report: Results.
    """
    limitations = limitations_of(report.test)
    lines = sentences.limitations(limitations, simulated=report.test.simulated)
    if not report.families:
        return [*lines, *_batch_sentences(report)]
    first = report.main
    value = float(report.curve(first.key, report.families[0].name).means[0])
    ends = report.curve(first.key, report.families[0].name).rows()[0]
    interval = f"(95\u00a0% confidence interval {score(report, ends['low'])} to {score(report, ends['high'])})"
    lines.append(
        f"{first.name} reaches {_NAMES[report.metric]} {score(report, value)} on unchanged images {interval}."
    )
    ranked = [row for row in report.ranking if row["standardise"]]
    if ranked and not limitations:
        titles = {family.name: family.title for family in report.families}
        names = ", ".join(f"{row['setting']} (change: {titles[row['family']]})" for row in ranked[:3])
        lines.append(f"Standardise first: {names}.")
    elif not ranked and not limitations:
        lines.append("No family of changes lowers it by a mean loss whose interval excludes 0.")
    return [*lines, *_batch_sentences(report)]


def _batch_sentences(report: Robustness) -> list[str]:
    """Return a sentence on the effect of each column of real batches on the embeddings of the first method."""
    lines = []
    for row in report.measured.column_effects:
        if row["method"] != report.main.key or row["size"] != row["size"]:
            continue
        size = f"{number(row['size'])} (95\u00a0% interval {number(row['low'])} to {number(row['high'])})"
        where = f"In {counted(row['sources'], 'source image')} of all splits"
        if row["called"]:
            lines.append(
                f"{where}, {row['family']} moves the embeddings of {report.main.name} by {size} standard deviations "
                "of a class."
            )
        else:
            lines.append(f"{where}, no effect of {row['family']} on embeddings is shown: size {size}.")
    return lines


def _tolerances(report: Robustness) -> Section:
    """Return the section with the tolerances."""
    name = _NAMES[report.metric]
    methods = [each for each in report.methods if each.key != "chance"]
    rows = []
    for family in report.families:
        if not family.ordered:
            continue
        cells = []
        for each in methods:
            row = report.tolerance(each.key, family.name)
            cell = tolerance_text(row, family)
            if row["reason"] is None and each.key == report.main.key:
                ends = ("high", "low") if family.decreasing else ("low", "high")
                low, high = (tolerance_text(row, family, end) for end in ends)
                cell = f"{cell} ({low} to {high})" if low != high else cell
            cells.append(cell if each.key == report.main.key else nonbreaking(cell))
        rows.append((family.title, *cells))
    loss = "5 points" if "accuracy" in report.metric else "0.05"
    text = [
        f"Level up to which the {name} stays within {loss} of that on unchanged images, interpolated between the "
        "tested levels. It is never extrapolated: > and < mean that the last tested level is still within the limit. "
        f"In brackets: 95 % interval over source images. A dash: the {name} on unchanged images is not clearly above "
        "chance, so that there is nothing to lose."
    ]
    header = ("change", *(nonbreaking(each.name) for each in methods))
    return Section("Tolerance", text, table=Table(header, rows))


def _ranking(report: Robustness) -> Section:
    """Return the section that ranks the settings of the acquisition."""
    titles = {family.name: family for family in report.families}
    rows = [
        (
            row["setting"],
            titles[row["family"]].title,
            points(report, row["mean_loss"]),
            f"{points(report, row['low'])} to {points(report, row['high'])}",
            "yes" if row["standardise"] else "not shown",
        )
        for row in report.ranking
    ]
    unit = ", points" if "accuracy" in report.metric else ""
    text = [
        f"Mean loss of {report.main.name} over the changed levels of each family. It depends on the tested levels: "
        "compare the levels with the variation at your microscope. A setting should be standardised if the interval "
        "excludes 0."
    ]
    header = ("setting", "change", f"mean loss{unit}", "95 % CI", "standardise")
    return Section("What to standardise first", text, table=Table(header, rows))


def _curves(report: Robustness, figures: Mapping[str, Path]) -> Section:
    """Return the section with the curves."""
    caption = (
        f"Band: 95 % interval of {report.main.name} over source images. Dashed line: tolerated loss. Mean over "
        f"{counted(report.settings['repeats'], 'repetition')} with other noise and other training images."
    )
    figure = ReportFigure.from_png(
        figures["curves"], f"{_NAMES[report.metric]} over the levels of each change", caption
    )
    header = ("change", "level", *(nonbreaking(each.name) for each in report.methods))
    rows = []
    for family in report.families:
        by_method = {each.key: report.curve(each.key, family.name).rows() for each in report.methods}
        for place, level in enumerate(family.levels):
            cells = []
            for key in by_method:
                row = by_method[key][place]
                sd = row["sd"]
                text = score(report, row["mean"])
                if sd is not None and "accuracy" in report.metric:
                    text = f"{text} ± {100 * float(sd):.1f}"
                cells.append(text)
            rows.append((family.title if place == 0 else "", family.label(level), *cells))
    title = _NAMES[report.metric]
    return Section(
        f"{title[0].upper()}{title[1:]} at each level",
        (),
        [figure],
        Table(header, rows, "Mean ± standard deviation over repetitions."),
    )


def _examples(report: Robustness, figures: Mapping[str, Path]) -> Section:
    """Return the section with example images."""
    shown = [
        ReportFigure.from_png(figures[family.name], f"An image at all levels: {family.title}", family.title)
        for family in report.families
    ]
    text = ["One test image at all levels, scaled as for the models (0.1 and 99.9 percentile)."]
    return Section("Changed images", text, shown)


def _definitions(report: Robustness) -> Section:
    """Return the section that defines the changes."""
    return Section("The changes", [f"{family.title}: {family.definition}" for family in report.families])


def _protocol(report: Robustness) -> str:
    """Describe the protocol."""
    classifier = {
        "accuracy": "a multinomial logistic regression",
        "label_accuracy": "a logistic regression for each class",
        "r2": "a ridge regression",
        "pearson_r": "a ridge regression (alpha 1, features not standardised)",
    }[report.metric]
    if report.settings["classifier"] == "knn":
        classifier = f"a vote of {report.settings['k']} nearest neighbours (cosine similarity)"
    return (
        f"The models are frozen. On their embeddings of unchanged training images, {classifier} is fitted; it is "
        "applied to changed test images without any further fit. Models with a head are also evaluated with their "
        "head. Changes act on the measured pixels, before the processor scales them; noise is a function of seed, "
        "image, family and level. Each repetition leaves out another fifth of the source images of each class of the "
        "training images. Intervals are percentiles of 2,000 bootstrap resamples of the test source images. Nothing "
        "is selected on changed images."
    )
