"""Report of `evaluate find`: metrics as JSON, tables, figures and an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from stedfm_hf.acquisition.evaluation.figures import plot_figures
from stedfm_hf.acquisition.evaluation.results import CURVES, SUMMARY, FindReport
from stedfm_hf.evaluation.report import sentences
from stedfm_hf.evaluation.report.cells import NONE, decimals, difference_cells, interval, nonbreaking, with_interval
from stedfm_hf.evaluation.report.files import PAGE, RESULTS, finite, write_table
from stedfm_hf.evaluation.report.sections import comparison_section, failed_section, method_section, write_report_page
from stedfm_hf.inference.tables import write_csv
from stedfm_hf.reports import ReportFigure, Section, Table
from stedfm_hf.runs import atomic_path, counted, some_of, write_json

SUMMARY_FILE, PER_IMAGE, CURVES_FILE = "summary.csv", "per_image.parquet", "curves.parquet"
FILES = (SUMMARY_FILE, PER_IMAGE, CURVES_FILE, "figures")
"""Files of the report, except `results.json` and `report.html`."""
GUESSING = ("chance", "random-patches", "coarsened")
"""Baselines that are not named as the best one."""
_PROTOCOL = {
    "patches": "Patches are ranked by their score. Those of an annotated object (which covers them at least half as "
    "much as the patch that it covers most) are positive, those that no class touches or that belong to another class "
    "are negative. Patches that an object touches less are not scored.",
    "pixels": "Every annotated pixel is ranked by the score of its patch, or of the pixel for baselines that score "
    "pixels.",
    "regions": "Regions of {size:g} × {size:g} pixels are centred on the maxima of the score map, the highest first, "
    "and do not overlap. Precision is the fraction of regions that show an annotated object that no better region "
    "shows; regions that show only such objects do not count. Recall is the fraction of objects that a region shows: "
    "it contains at least half as much of the object as a region of this size can contain.",
}
_REFERENCE = (
    "Reference protocol: pixels are ranked by the published score maps, before they are raised to a quantile. "
    "Precision is interpolated linearly at 100 values of recall, which is too optimistic, and averaged over the "
    "images that show the class. Finders are fitted in folds of source images, unlike in the published code, which "
    "has separate templates."
)
_BASELINES = {
    "intensity": "Intensity: the scaled intensity of the pixel, and its mean over the patch.",
    "otsu": "Otsu foreground: pixels above Otsu's threshold of the image, and their fraction in the patch.",
    "template-matching": "Template matching of pixels: the largest normalised cross-correlation with up to four "
    "annotated objects of other folds, in four rotations; for a patch its largest value.",
    "random-patches": "Random patches of the foreground: patches in random order, those with more than 10 % of Otsu's "
    "foreground first; the mean of 10 repeats.",
    "chance": "Chance: patches in random order; the mean of 10 repeats.",
    "coarsened": "Annotation in patches: the fraction of each patch that the class covers. It uses the annotation of "
    "the image; no map of patches ranks pixels better.",
}
_REFERENCE_BASELINES = {
    "random-patches": "Random patches of the foreground: the annotated patches, permuted among those with more than "
    "10 % of Otsu's foreground; the mean of 10 repeats.",
    "coarsened": "Annotation in patches: 1 for every patch that the class touches. It uses the annotation of the "
    "image.",
}


def write_find_report(report: FindReport, folder: Path) -> None:
    """Write the files of the report.

    Args:
        report: Results.
        folder: Folder to write into.
    """
    write_table(report.per_image, folder / PER_IMAGE)
    write_table(pa.Table.from_pylist(list(report.curves), CURVES), folder / CURVES_FILE)
    with atomic_path(folder / SUMMARY_FILE) as temporary:
        columns = {name: [row[name] for row in report.summary] for name in SUMMARY}
        write_csv(pa.table(columns), temporary)
    figures = plot_figures(report, folder / "figures")
    _write_page(report, figures, folder / PAGE)
    write_json(folder / RESULTS, finite(report.record()))


def _write_page(report: FindReport, figures: Mapping[str, Path], path: Path) -> None:
    """Write the HTML page."""
    sections = [_data(report), _scores(report, figures["scores"]), _curves(report, figures)]
    if "examples" in figures:
        sections.append(_examples(report, figures["examples"]))
    if report.comparisons:
        sections.append(_comparisons(report))
    if len(report.classes) > 1:
        sections.append(_classes(report))
    if report.pooled:
        sections.append(_pooled(report))
    sections.append(_methods(report))
    sections += failed_section("Excluded images", report.failed)
    write_report_page(
        path,
        command="evaluate find",
        title="Finding structures",
        lead=_lead(report),
        test=report.data,
        splits={"scored": {"images": len(report.data), "sources": report.data.source_count}},
        facts={
            "classes": str(len(report.classes)),
            "folds": str(report.folds),
            "protocol": str(report.settings.get("protocol")),
        },
        sections=sections,
        files="the figures as PNG and SVG (figures), all metrics (results.json, summary.csv), the average precision "
        "of each image (per_image.parquet) and the curves (curves.parquet)",
    )


def _lead(report: FindReport) -> list[str]:
    """Return the main results as sentences."""
    lines, level = sentences.limitations(report.limitations, simulated=report.data.simulated), report.levels[0]
    first, best = report.best("model", level), report.best("baseline", level, without=GUESSING)
    if first is not None:
        precision = with_interval(report.row(first, level))
        lines.append(f"The best finder is {report.name(first)}: its average precision of {level} is {precision}.")
    if best is not None:
        lines.append(f"The best baseline, {report.name(best)}, reaches {decimals(report.row(best, level)['mean'])}.")
    if "chance" in [each.key for each in report.methods]:
        lines.append(f"Chance is {decimals(report.row('chance', level)['mean'])}.")
    if not report.limitations and first is not None:
        compared = [row for row in report.comparisons if row["model"] == first and row["other"] not in GUESSING]
        if words := sentences.verdicts(compared, report.name):
            lines.append(f"On the same images, {report.name(first)} is {words}.")
    return lines


def _data(report: FindReport) -> Section:
    """Return the section on the images."""
    text = [
        f"Finders are fitted in {report.folds} folds of source images: every image is scored by finders that were "
        "fitted to images of other sources.",
        report.split_description,
        *report.all_notes(),
        *([sentences.SIMULATED] if report.data.simulated else []),
    ]
    if report.data.without_mask:
        text.append(f"Images without a mask are excluded: {some_of(report.data.without_mask)}.")
    rows = [
        (
            each["class"],
            str(each["images"]),
            *(_percent(each[f"fraction_of_{level}"]) for level in ("patches", "pixels")),
            NONE if each["objects"] is None else str(each["objects"]),
        )
        for each in report.facts
    ]
    header = ("class", "images with the class", "patches, %", "pixels, %", "objects")
    caption = "Mean percentage of positive patches and pixels in images with the class: the precision of chance."
    return Section("Data", text, table=Table(header, rows, caption))


def _percent(value: float | None) -> str:
    """Format a fraction as a percentage."""
    if value is None:
        return NONE
    return f"{100 * value:.2g}" if 0 < value < 0.01 else f"{100 * value:.1f}"


def _scores(report: FindReport, figure: Path) -> Section:
    """Return the section with the means of all methods."""
    rows = []
    for each in report.methods:
        found = [report.row(each.key, level) for level in report.levels]
        cells = [decimals(found[0]["mean"]), interval(found[0]), *(decimals(row["mean"]) for row in found[1:])]
        rows.append((nonbreaking(each.name), *cells))
    best = report.best("model", report.levels[0])
    strong = None if best is None else [each.key for each in report.methods].index(best)
    header = ("method", report.levels[0], "95 % CI", *report.levels[1:])
    caption = (
        "Average precision, the area below the precision-recall curve: mean over the images that show the class, then "
        "over classes. CI: 95 % confidence interval of the mean, from a bootstrap over source images. "
        f"{sentences.OVERLAPPING}"
    )
    shown = ReportFigure.from_png(
        figure,
        "Average precision of all methods with confidence intervals",
        "Large dots: means; lines: 95 % confidence intervals; small dots: single images.",
    )
    return Section("Average precision", (), [shown], Table(header, rows, caption, strong=strong))


def _curves(report: FindReport, figures: Mapping[str, Path]) -> Section:
    """Return the section of the precision-recall curves."""
    caption = "Precision at each recall, averaged over the images that show the class; 0 where no score reaches it."
    if report.reference:
        caption = (
            "Precision interpolated at 100 values of recall, averaged over the images that show the class. Star: "
            "annotation in patches."
        )
    shown = [ReportFigure.from_png(figures["curves"], "Precision-recall curves of all methods", caption)]
    if "difference" in figures:
        shown.append(
            ReportFigure.from_png(
                figures["difference"],
                "Precision of all methods minus that of intensity",
                "Precision minus that of intensity, at the same recall.",
            )
        )
    return Section("Precision-recall curves", figures=shown)


def _examples(report: FindReport, figure: Path) -> Section:
    """Return the section with example images."""
    several = len(report.classes) > 1
    names = "; ".join(
        f"{each.title}: {each.image_id} ({'mean AP' if several else 'AP'} {each.mean_precision:.2f}"
        f"{f', {each.class_name} {each.class_precision:.2f}' if several else ''})"
        for each in report.examples
    )
    shown = [report.name(key) for key in report.examples[0].maps]
    text = [
        f"Images with the best, median and worst average precision (AP) of {shown[0]}, selected by this rule only."
        + (" Images are ranked by the mean over their classes; the class with the lowest AP is shown." * several)
    ]
    caption = f"{names}. Blue outlines: annotation. Score maps from their minimum (dark) to their maximum (bright)."
    if any(each.regions for each in report.examples):
        caption += (
            f" Squares: the best regions of {shown[0]} by rank; green ones show an annotated object that no better "
            "region shows, red ones show none."
        )
    shown_figure = ReportFigure.from_png(figure, "Images with annotation, regions and score maps", caption)
    return Section("Best, median and worst image", text, [shown_figure])


def _comparisons(report: FindReport) -> Section:
    """Return the section of the pairwise comparisons."""
    tested = f"of the average precision of {report.levels[0]}, mean over the classes of an image, on the same images"
    return comparison_section(
        report.comparisons,
        report.methods,
        header=("difference", "95 % CI", "images"),
        cells=lambda each: (*difference_cells(each), str(each["images"])),
        text=f"{sentences.permutation_tests(tested, 'two methods')} {sentences.NOT_SIGNIFICANT}",
        limited=bool(report.limitations),
    )


def _classes(report: FindReport) -> Section:
    """Return the section with the average precision of each class."""
    level = report.levels[0]
    rows = [
        (nonbreaking(each.name), *(decimals(report.row(each.key, level, name)["mean"]) for name in report.classes))
        for each in report.methods
    ]
    caption = f"Average precision of {level}, mean over the images that show the class."
    return Section("Classes", table=Table(("method", *report.classes), rows, caption))


def _pooled(report: FindReport) -> Section:
    """Return the section with the average precision over all images together."""
    value = {(row["method"], row["level"], row["class"]): row["average_precision"] for row in report.pooled}
    pairs = list(dict.fromkeys((row["level"], row["class"]) for row in report.pooled))
    rows = [(nonbreaking(each.name), *(decimals(value[each.key, *pair]) for pair in pairs)) for each in report.methods]
    header = ("method", *(f"{level}: {name}" for level, name in pairs))
    text = [
        "Patches and regions of all images in one ranking. False positives in images without the class count here, "
        "and scores must mean the same in every image."
    ]
    return Section("All images together", text, table=Table(header, rows))


def _methods(report: FindReport) -> Section:
    """Return the last section: protocol, baselines and weights."""
    described = _BASELINES | (_REFERENCE_BASELINES if report.reference else {})
    text: Sequence[str] = [
        *(
            [_REFERENCE]
            if report.reference
            else [_PROTOCOL[level].format(size=report.region_size) for level in report.levels]
        ),
        *sentences.baselines(report.methods, described),
    ]
    if any(each.key.endswith("(untrained)") for each in report.methods):
        text = [
            *text,
            "Untrained: the same methods with the architecture of the first model and random weights, whose input is "
            "normalised by the mean and standard deviation of the images.",
        ]
    text = [*text, f"Fitting and scoring took {report.seconds:,.0f} s. {counted(len(report.methods), 'method')}."]
    return method_section(text, report.methods, "method")
