"""The page of an evaluation of segmentation: what was scored, how well, and how far it can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stedfm_hf.evaluation.report.segmentation.figures import MOST_PIXELS, WORDS, plot_figures
from stedfm_hf.evaluation.report.segmentation.findings import PRIMARY, Findings
from stedfm_hf.evaluation.report.shared import (
    LEVEL,
    NONE,
    PAGE,
    SIMULATED,
    caveats,
    facts_of,
    finite,
    how_it_was_done,
    left_out,
    sentences_on,
    unbroken,
    verdicts,
    which_differ,
    write_table,
)
from stedfm_hf.evaluation.segmentation.scored import table_of
from stedfm_hf.reports import ReportFigure, Section, Table, write_page
from stedfm_hf.runs import counted, some_of, write_json

RESULTS, PER_IMAGE = "metrics.json", "per_image.parquet"
_BASELINES = {
    "otsu": "Otsu's threshold of each image takes its bright pixels for every class, or, where classes exclude each "
    "other, for the most frequent one.",
    "wavelets": "Wavelet spots are pixels bright at several scales at once; scales and threshold are those with the "
    "highest mean IoU on the training images.",
    "forest": "The pixel forest (100 trees) learns from intensity, gradients and Hessian at five scales of 20,000 "
    "pixels of the training images.",
    "constant": "The constant answer takes every pixel for every class, or, where classes exclude each other, for the "
    "most frequent one: its IoU is the share of true pixels.",
    "chance": "Chance draws each pixel, of every class as often as in the training images.",
}


def write_page_of(findings: Findings, figures: Mapping[str, Path], path: Path) -> Path:
    """Writes `report.html`; figures are PNG files by name."""
    sections = [_material(findings), _scores(findings, figures)]
    if findings.comparisons:
        sections.append(_comparisons(findings))
    if "examples" in figures:
        sections.append(_examples(findings, figures["examples"]))
    sections.append(_classes(findings, figures))
    if findings.objects:
        sections.append(_objects(findings))
    sections.append(_method(findings))
    sections += left_out("Images that were left out", findings.failed)
    simulated = " (simulated images)" if findings.test.simulated else ""
    return write_page(
        path,
        title=f"Segmentation: {findings.test.name}{simulated}",
        lead=" ".join(summary(findings)),
        facts=facts_of(
            findings.splits,
            findings.test,
            classes=str(len(findings.shown_classes)),
            protocol=findings.scoring.protocol,
        ),
        sections=sections,
        footer=f"Made by `stedfm {findings.command}` of the package stedfm-hf. This page is self-contained; figures "
        "are next to it in the folder figures as PNG and SVG, all numbers in metrics.json, the scores of every image "
        "in per_image.parquet.",
    )


def summary(findings: Findings) -> list[str]:
    """What came out, a sentence each; the page opens with it."""
    lines = caveats(findings.limitations, simulated=findings.test.simulated)
    first, best = findings.lead, findings.best_baseline()
    lines.append(f"{first.name} reaches a mean IoU of {_with_interval(findings.row(first.key, PRIMARY))}.")
    if first.kind == "model" and best is not None:
        mean = _number(findings.row(best, PRIMARY)["mean"])
        lines.append(f"The best baseline, {findings.name(best)}, reaches {mean}.")
    if not findings.limitations and first.kind == "model":
        beaten = [
            row
            for row in findings.comparisons
            if row["model"] == first.key and row["other"] not in ("constant", "chance")
        ]
        if words := verdicts(beaten, findings.name):
            lines.append(f"On the same images {first.name} is {words}.")
    return lines


def _with_interval(row: Mapping[str, Any]) -> str:
    text = _number(row["mean"])
    if row["low"] is None:
        return text
    return f"{text} (95\u00a0% interval {_number(row['low'])} to {_number(row['high'])})"


def _ends(row: Mapping[str, Any]) -> str:
    return NONE if row["low"] is None else f"{_number(row['low'])} to {_number(row['high'])}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _material(findings: Findings) -> Section:
    test = findings.test
    text = [f"{findings.how} No source image is in two splits; this was checked.", *findings.notes]
    text += [SIMULATED] * test.simulated
    if findings.warnings:
        text.append("Mind: " + ". ".join(findings.warnings) + ".")
    if test.unmasked:
        text.append(f"Images without a mask, left out: {some_of(test.unmasked)}.")
    if findings.failed:
        text.append(f"{counted(len(findings.failed), 'image')} failed: left out for all methods, and named below.")
    splits, rows = list(findings.splits), []
    for number, name in enumerate(test.classes):
        shares = (_share(findings.splits[split], name) for split in splits)
        rows.append((name, str(int((test.pixels[:, number] > 0).sum())), *shares))
    header = ("class", "test images with it", *(f"pixels of {split}, %" for split in splits))
    caption = (
        "Counted here are pixels of soft masks above 0; in the scores they are true above 0.5."
        if test.target_type == "soft"
        else ""
    )
    return Section("What was scored", text, table=Table(header, rows, caption))


def _share(side: Mapping[str, Any], name: str) -> str:
    share = 100 * side["pixels"][name] / max(side["total_pixels"], 1)
    return f"{share:.2g}" if 0 < share < 1 else f"{share:.1f}"


def _scores(findings: Findings, figures: Mapping[str, Path]) -> Section:
    names = [name for name in findings.metric_names if name != "sq"]
    lead = [each.key for each in findings.contestants].index(findings.lead.key)
    left_out = [name for name in findings.test.classes if name not in findings.shown_classes]
    rows = []
    for each in findings.contestants:
        found = {name: findings.row(each.key, name) for name in names}
        cells = [
            cell
            for name in names
            for cell in ([_number(found[name]["mean"])] + ([_ends(found[name])] if name == PRIMARY else []))
        ]
        rows.append((unbroken(each.name), *cells))
    header = (
        "method",
        *(head for name in names for head in ([WORDS[name]] + (["95 % interval"] if name == PRIMARY else []))),
    )
    over = "over classes" + (f" (without {', '.join(left_out)})" if left_out else "")
    caption = (
        f"Means over images, then {over}. Intervals: 95 %, over source images, which are the independent units; "
        "another training of the model is not in them. " + _undefined(findings)
    )
    picture = ReportFigure.from_png(
        figures["scores"],
        "Mean scores of all methods with their intervals",
        "Large dots: means; bars: 95 % intervals; small dots: single images.",
    )
    return Section("Scores", (), [picture], Table(header, rows, caption, strong=lead))


def _undefined(findings: Findings) -> str:
    first = findings.lead
    found = [
        (WORDS[name], row["undefined"], row["images"] + row["undefined"])
        for name in findings.metric_names
        if name != "sq" and (row := findings.row(first.key, name))["undefined"]
    ]
    if not found:
        return "Every score of every image and class had a value."
    listed = ", ".join(f"{word} {count} of {total}" for word, count, total in found)
    return f"Scores without a value are not averaged in; of {first.name}, pairs of image and class: {listed}."


def _comparisons(findings: Findings) -> Section:
    return which_differ(
        findings.comparisons,
        first=findings.contestants[0].name,
        alone=sum(each.kind == "model" for each in findings.contestants) == 1,
        noun="methods",
        name=findings.name,
        header=("difference of IoU", "95 % interval", "images"),
        cells=lambda each: (
            f"{each['difference']:+.3f}",
            f"{each['low']:+.3f} to {each['high']:+.3f}",
            str(each["images"]),
        ),
        text="Both methods meet the same images; the score of an image is its mean IoU over the classes. If two "
        "methods were alike, swapping their scores on a source image would change nothing: p is the share of 10,000 "
        "random swaps with a difference as large (two-sided), corrected by Holm's method for all tests of this page; "
        f"below {LEVEL} they are called different. Images of which a method has no IoU are left out of its pairs.",
        limited=bool(findings.limitations),
    )


def _examples(findings: Findings, figure: Path) -> Section:
    first = findings.lead.name
    names = ", ".join(f"{each.word}: {each.place}" for each in findings.examples)
    text = [
        f"The images on which {first} has its best, median and worst IoU: not a choice of pretty ones. Outlines of "
        "the annotation, and of what was found."
    ]
    caption = f"{names}."
    if any(max(each.image.shape) > MOST_PIXELS for each in findings.examples):
        caption += (
            f" Of images above {MOST_PIXELS} pixels a side the part with most annotation is shown; the IoU is that of "
            "the whole image."
        )
    if any(each.region is not None for each in findings.examples):
        caption += " Lightened: outside of the region where the annotation counts."
    picture = ReportFigure.from_png(figure, "Images with outlines of the annotation and of the predictions", caption)
    return Section("The best, the median and the worst image", text, [picture])


def _classes(findings: Findings, figures: Mapping[str, Path]) -> Section:
    names = [name for name in findings.metric_names if name not in ("f1", "pq", "sq")]
    rows = []
    for each_class in findings.test.classes:
        for each in findings.contestants:
            found = {name: findings.row(each.key, name, each_class) for name in names}
            primary = found[PRIMARY]
            rows.append(
                (
                    f"{each_class}: {unbroken(each.name)}",
                    *(_number(found[name]["mean"]) for name in names[:1]),
                    _ends(primary),
                    *(_number(found[name]["mean"]) for name in names[1:]),
                    str(primary["images"]),
                    str(primary["undefined"]),
                )
            )
    header = (
        "class and method",
        WORDS[PRIMARY],
        "95 % interval",
        *(WORDS[name] for name in names[1:]),
        "images",
        "undefined",
    )
    caption = (
        "The last columns: images whose IoU has a value, and those where the class is neither there nor predicted. "
        "AUPR and AUROC of an image without the class, or full of it, have no value either."
    )
    shown: Sequence[ReportFigure] = ()
    if "classes" in figures:
        shown = [ReportFigure.from_png(figures["classes"], "IoU of every class and method", "Bars: 95 % intervals.")]
    return Section("Class by class", (), shown, Table(header, rows, caption))


def _objects(findings: Findings) -> Section:
    rows = []
    several = len(findings.shown_classes) > 1
    for each_class in findings.shown_classes:
        for each in findings.contestants:
            if each.key in ("constant", "chance"):
                continue  # their regions are no objects anybody would take for some
            found = {
                row["metric"]: row
                for row in findings.objects
                if (row["method"], row["class"]) == (each.key, each_class)
            }
            counts = found["f1"]
            rows.append(
                (
                    f"{each_class}: {unbroken(each.name)}" if several else unbroken(each.name),
                    _number(counts["value"]),
                    _ends(counts),
                    _number(found["pq"]["value"]),
                    _number(found["sq"]["value"]),
                    *(f"{counts[name]:,}" for name in ("true_positives", "false_negatives", "false_positives")),
                )
            )
    text = [
        "Objects are connected regions, over sides and corners; two match where their IoU is above 0.5. Here the "
        "objects of all images count alike; above, each image does. F1 counts matches, SQ is the mean IoU of the "
        "matches, and PQ, the panoptic quality, their product."
        + (
            f" Regions of fewer than {findings.scoring.min_area_px} pixels are no objects."
            if findings.scoring.min_area_px > 1
            else ""
        ),
        "A structure that touches itself everywhere, as a network of fibres, is one object or few: then look at the "
        "pixels.",
    ]
    header = ("class and method" if several else "method", "F1", "95 % interval", "PQ", "SQ")
    return Section("Object by object", text, table=Table((*header, "matched", "missed", "spurious"), rows))


def _method(findings: Findings) -> Section:
    text = []
    if any(each.kind == "model" for each in findings.contestants):
        text.append(
            "Models segment each image as `stedfm segment` does: scaled once as a whole, in windows of the model's "
            "crop that overlap by a quarter and are blended."
        )
    text += [*sentences_on(findings.contestants, _BASELINES), _rules(findings)]
    return how_it_was_done(text, findings.contestants, "method")


def _rules(findings: Findings) -> str:
    if findings.scoring.protocol == "reference":
        return (
            f"The reference's rules, for comparison with published figures: a pixel is predicted above "
            f"{findings.threshold:g}; areas under curves are trapezoids; a score that is undefined is -1 in the table "
            "of images and left out of the means; the weak AUPR of an object's box can be -1 and is averaged in."
        )
    pixel = (
        "Each pixel is of its most probable class"
        if findings.test.target_type == "single_label"
        else f"A pixel is predicted above a probability of {findings.threshold:g}"
    )
    soft = " A soft mask is true above 0.5." if findings.test.target_type == "soft" else ""
    return (
        f"{pixel}.{soft} IoU and Dice are undefined where a class is neither there nor predicted, and 0 where it is "
        "predicted for nothing. AUPR is the average precision; it and AUROC ask how well probabilities order the "
        "pixels, and depend on no threshold. Where an annotation has a region, only its pixels count."
    )


def write_findings(findings: Findings, folder: Path) -> None:
    """Write `metrics.json`, `per_image.parquet`, `figures/` and `report.html`."""
    scored = [each for scores in findings.scores.values() for each in scores]
    write_table(table_of(scored, findings.test.classes), folder / PER_IMAGE)
    figures = plot_figures(findings, folder / "figures")
    write_page_of(findings, figures, folder / PAGE)
    write_json(folder / RESULTS, finite(findings.record()))
