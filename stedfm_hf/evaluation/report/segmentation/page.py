"""HTML page of `evaluate segmentation`: results, protocol and limitations in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stedfm_hf.evaluation.report import sentences
from stedfm_hf.evaluation.report.cells import decimals, difference_cells, interval, nonbreaking, with_interval
from stedfm_hf.evaluation.report.files import PAGE, finite, write_table
from stedfm_hf.evaluation.report.sections import comparison_section, failed_section, method_section, write_report_page
from stedfm_hf.evaluation.report.segmentation.evaluation import PRIMARY, SegmentationEvaluation
from stedfm_hf.evaluation.report.segmentation.figures import MAX_SIZE_PX, METRIC_NAMES, plot_figures
from stedfm_hf.evaluation.segmentation.scores import scores_to_table
from stedfm_hf.reports import ReportFigure, Section, Table
from stedfm_hf.runs import counted, some_of, write_json

RESULTS, PER_IMAGE = "metrics.json", "per_image.parquet"
_BASELINES = {
    "otsu": "Otsu: pixels above Otsu's threshold of each image belong to every class or, for exclusive classes, to "
    "the most frequent class.",
    "wavelets": "Wavelet spots: pixels that are bright at several wavelet scales; scales and threshold have the "
    "highest mean IoU on the training images.",
    "forest": "Pixel forest: 100 trees, trained on intensity, gradients and Hessian eigenvalues at five scales of "
    "20,000 pixels of the training images.",
    "constant": "Constant: every pixel belongs to every class or, for exclusive classes, to the most frequent class. "
    "Its IoU is the fraction of true pixels.",
    "chance": "Chance: random pixels, as frequent in each class as in the training images.",
}


def _write_page(evaluation: SegmentationEvaluation, figures: Mapping[str, Path], path: Path) -> None:
    """Write the HTML page."""
    sections = [_data(evaluation), _scores(evaluation, figures)]
    if evaluation.comparisons:
        sections.append(_comparisons(evaluation))
    if "examples" in figures:
        sections.append(_examples(evaluation, figures["examples"]))
    sections.append(_classes(evaluation, figures))
    if evaluation.objects:
        sections.append(_objects(evaluation))
    sections.append(_method(evaluation))
    sections += failed_section("Excluded images", evaluation.failed)
    write_report_page(
        path,
        command=evaluation.command,
        title="Segmentation",
        lead=summary(evaluation),
        test=evaluation.test,
        splits=evaluation.splits,
        facts={"classes": str(len(evaluation.shown_classes)), "protocol": evaluation.scorer.protocol},
        sections=sections,
        files="the figures as PNG and SVG (figures), all metrics (metrics.json) and the scores of each image "
        "(per_image.parquet)",
    )


def summary(evaluation: SegmentationEvaluation) -> list[str]:
    """Return the main results as sentences, which open the page.

    Args:
        evaluation: Results.
    """
    lines = sentences.limitations(evaluation.limitations, simulated=evaluation.test.simulated)
    first, best = evaluation.main_method, evaluation.best_baseline()
    lines.append(f"{first.name} reaches a mean IoU of {with_interval(evaluation.row(first.key, PRIMARY))}.")
    if first.kind != "baseline" and best is not None:
        mean = decimals(evaluation.row(best, PRIMARY)["mean"])
        lines.append(f"The best baseline, {evaluation.name(best)}, reaches {mean}.")
    if not evaluation.limitations and first.kind != "baseline":
        compared = [
            row
            for row in evaluation.comparisons
            if row["model"] == first.key and row["other"] not in ("constant", "chance")
        ]
        if words := sentences.verdicts(compared, evaluation.name):
            lines.append(f"On the same images, {first.name} is {words}.")
    return lines


def _data(evaluation: SegmentationEvaluation) -> Section:
    """Return the section on the images."""
    test = evaluation.test
    text = [f"{evaluation.split_description} No source image is in two splits.", *evaluation.notes]
    text += [sentences.SIMULATED] * test.simulated
    if evaluation.warnings:
        text.append("Warning: " + ". ".join(evaluation.warnings) + ".")
    if test.without_mask:
        text.append(f"Images without a mask are excluded: {some_of(test.without_mask)}.")
    if evaluation.failed:
        text.append(
            f"{counted(len(evaluation.failed), 'image')} failed and are excluded for all methods; see the last "
            "section."
        )
    splits, rows = list(evaluation.splits), []
    for number, name in enumerate(test.classes):
        percentages = (_percentage(evaluation.splits[split], name) for split in splits)
        rows.append((name, str(int((test.pixels[:, number] > 0).sum())), *percentages))
    header = ("class", "test images with the class", *(f"{split} pixels, %" for split in splits))
    caption = (
        "Pixels of soft masks are counted above 0. For the scores, they are true above 0.5."
        if test.target_type == "soft"
        else ""
    )
    return Section("Data", text, table=Table(header, rows, caption))


def _percentage(split: Mapping[str, Any], name: str) -> str:
    """Format the percentage of pixels of a class."""
    percentage = 100 * split["pixels"][name] / max(split["total_pixels"], 1)
    return f"{percentage:.2g}" if 0 < percentage < 1 else f"{percentage:.1f}"


def _scores(evaluation: SegmentationEvaluation, figures: Mapping[str, Path]) -> Section:
    """Return the section with the scores of all methods."""
    names = [name for name in evaluation.metric_names if name != "sq"]
    main = [each.key for each in evaluation.methods].index(evaluation.main_method.key)
    excluded = [name for name in evaluation.test.classes if name not in evaluation.shown_classes]
    rows = []
    for each in evaluation.methods:
        found = {name: evaluation.row(each.key, name) for name in names}
        cells = [
            cell
            for name in names
            for cell in ([decimals(found[name]["mean"])] + ([interval(found[name])] if name == PRIMARY else []))
        ]
        rows.append((nonbreaking(each.name), *cells))
    header = (
        "method",
        *(head for name in names for head in ([METRIC_NAMES[name]] + (["95 % CI"] if name == PRIMARY else []))),
    )
    over = "over classes" + (f" (without {', '.join(excluded)})" if excluded else "")
    caption = (
        f"Means over images, then {over}. IoU: intersection over union; AUPR: average precision, the area under the "
        "precision-recall curve; AUROC: area under the ROC curve; PQ: panoptic quality. CI: 95 % confidence interval "
        "of the mean, from a bootstrap over source images, without the variation between training runs. "
        f"{sentences.OVERLAPPING} {_undefined(evaluation)}"
    )
    report_figure = ReportFigure.from_png(
        figures["scores"],
        "Mean scores of all methods with confidence intervals",
        "Large dots: means; lines: 95 % confidence intervals; small dots: single images.",
    )
    return Section("Scores", (), [report_figure], Table(header, rows, caption, strong=main))


def _undefined(evaluation: SegmentationEvaluation) -> str:
    """Report undefined scores of the main method."""
    first = evaluation.main_method
    undefined = [
        (METRIC_NAMES[name], row["undefined"], row["images"] + row["undefined"])
        for name in evaluation.metric_names
        if name != "sq" and (row := evaluation.row(first.key, name))["undefined"]
    ]
    if not undefined:
        return "All scores are defined."
    listed = ", ".join(f"{count} of {total} for {name}" for name, count, total in undefined)
    return f"Undefined scores are excluded; for {first.name}, pairs of image and class: {listed}."


def _comparisons(evaluation: SegmentationEvaluation) -> Section:
    """Return the section of the pairwise comparisons."""
    tests = sentences.permutation_tests("on the same images, by their mean IoU over classes")
    return comparison_section(
        evaluation.comparisons,
        evaluation.methods,
        header=("difference of IoU", "95 % CI", "images"),
        cells=lambda each: (*difference_cells(each), str(each["images"])),
        text=f"{tests} {sentences.NOT_SIGNIFICANT} Images without a defined IoU of both methods are excluded.",
        limited=bool(evaluation.limitations),
    )


def _examples(evaluation: SegmentationEvaluation, figure: Path) -> Section:
    """Return the section with example images."""
    first = evaluation.main_method.name
    names = ", ".join(f"{each.title}: {each.image_id}" for each in evaluation.examples)
    text = [
        f"Images with the best, median and worst IoU of {first}, selected by this rule only. Outlines show the "
        "annotation and the predictions."
    ]
    caption = f"{names}."
    if any(max(each.image.shape) > MAX_SIZE_PX for each in evaluation.examples):
        caption += (
            f" Images above {MAX_SIZE_PX} pixels are cropped to the part with the largest annotated area; the IoU is "
            "that of the whole image."
        )
    if any(each.region is not None for each in evaluation.examples):
        caption += " Lightened pixels are outside the annotated region and are not scored."
    report_figure = ReportFigure.from_png(
        figure, "Images with outlines of the annotation and of the predictions", caption
    )
    return Section("Best, median and worst image", text, [report_figure])


def _classes(evaluation: SegmentationEvaluation, figures: Mapping[str, Path]) -> Section:
    """Return the section with the scores of each class."""
    names = [name for name in evaluation.metric_names if name not in ("f1", "pq", "sq")]
    rows = []
    for each_class in evaluation.test.classes:
        for each in evaluation.methods:
            found = {name: evaluation.row(each.key, name, each_class) for name in names}
            primary = found[PRIMARY]
            rows.append(
                (
                    f"{each_class}: {nonbreaking(each.name)}",
                    *(decimals(found[name]["mean"]) for name in names[:1]),
                    interval(primary),
                    *(decimals(found[name]["mean"]) for name in names[1:]),
                    str(primary["images"]),
                    str(primary["undefined"]),
                )
            )
    header = (
        "class and method",
        METRIC_NAMES[PRIMARY],
        "95 % CI",
        *(METRIC_NAMES[name] for name in names[1:]),
        "images",
        "undefined",
    )
    caption = (
        "Last columns: images with a defined IoU, and images where the class is neither annotated nor predicted. "
        "AUPR and "
        "AUROC are also undefined for images without the class, or with the class in all pixels."
    )
    shown: Sequence[ReportFigure] = ()
    if "classes" in figures:
        shown = [
            ReportFigure.from_png(
                figures["classes"], "IoU of each class and method", "Symbols: means; lines: 95 % confidence intervals."
            )
        ]
    return Section("Scores by class", (), shown, Table(header, rows, caption))


def _objects(evaluation: SegmentationEvaluation) -> Section:
    """Return the section with the object metrics."""
    rows = []
    has_classes = len(evaluation.shown_classes) > 1
    for each_class in evaluation.shown_classes:
        for each in evaluation.methods:
            if each.key in ("constant", "chance"):
                continue  # their regions are not meaningful objects
            found = {
                row["metric"]: row
                for row in evaluation.objects
                if (row["method"], row["class"]) == (each.key, each_class)
            }
            counts = found["f1"]
            rows.append(
                (
                    f"{each_class}: {nonbreaking(each.name)}" if has_classes else nonbreaking(each.name),
                    decimals(counts["value"]),
                    interval(counts),
                    decimals(found["pq"]["value"]),
                    decimals(found["sq"]["value"]),
                    *(f"{counts[name]:,}" for name in ("true_positives", "false_negatives", "false_positives")),
                )
            )
    text = [
        "Objects are connected components, including diagonal neighbours; two objects match if their IoU is "
        "above 0.5. "
        "Here all objects have equal weight; in the tables above, all images have equal weight. F1 is the detection "
        "score, SQ (segmentation quality) the mean IoU of the matches, and PQ (panoptic quality) their product. "
        "Matched "
        "objects are true positives, missed ones false negatives, and spurious ones false positives."
        + (
            f" Components below {evaluation.scorer.min_area_px} pixels are ignored."
            if evaluation.scorer.min_area_px > 1
            else ""
        ),
        "Do not interpret object metrics of structures that are connected everywhere, such as networks of fibres: use "
        "the pixel metrics.",
    ]
    header = ("class and method" if has_classes else "method", "F1", "95 % CI", "PQ", "SQ")
    return Section("Object metrics", text, table=Table((*header, "matched", "missed", "spurious"), rows))


def _method(evaluation: SegmentationEvaluation) -> Section:
    """Return the section on the protocol."""
    text = []
    if any(each.kind == "model" for each in evaluation.methods):
        text.append(
            "Models segment each image as the command stedfm segment does: the whole image is scaled, segmented "
            "in tiles "
            "that overlap "
            "by a quarter, and blended."
        )
    if any(each.kind == "zero-shot" for each in evaluation.methods):
        text.append(_zero_shot(evaluation))
    text += [*sentences.baselines(evaluation.methods, _BASELINES), _protocol(evaluation)]
    return method_section(text, evaluation.methods, "method")


def _zero_shot(evaluation: SegmentationEvaluation) -> str:
    """Describe the zero-shot masks."""
    attention = (
        "the smallest set of pixels with 60 % of the attention of the class token, each block scaled to [0, 1]"
        if evaluation.scorer.protocol == "reference"
        else "pixels above Otsu's threshold of the attention of the class token, mean over blocks and heads"
    )
    return (
        "Zero-shot masks use neither annotations nor training images. Patch clusters: k-means of the patch tokens of "
        "an image; clusters are foreground if their mean intensity is above Otsu's threshold. Attention: "
        f"{attention}. Both are interpolated from patches to pixels. Every class is scored with the same foreground "
        "mask."
    )


def _protocol(evaluation: SegmentationEvaluation) -> str:
    """Describe the scoring protocol."""
    if evaluation.scorer.protocol == "reference":
        return (
            "Reference protocol, for comparison with published results: pixels are predicted above a probability of "
            f"{evaluation.threshold:g}, and areas under curves use the trapezoidal rule. Undefined scores are -1 "
            "in the "
            "table of images and excluded from means; -1 of the box of a single object is included in the weak AUPR."
        )
    pixel = (
        "Each pixel belongs to its most probable class"
        if evaluation.test.target_type == "single_label"
        else f"Pixels are predicted above a probability of {evaluation.threshold:g}"
    )
    soft = " Pixels of soft masks are true above 0.5." if evaluation.test.target_type == "soft" else ""
    return (
        f"{pixel}.{soft} IoU and Dice are undefined if a class is neither annotated nor predicted, and 0 if it is "
        "predicted only. AUPR (average precision) and AUROC measure the ranking of pixels by probability and do "
        "not depend "
        "on the threshold. If an annotation has a region, only pixels inside it are scored."
    )


def write_segmentation_report(evaluation: SegmentationEvaluation, folder: Path) -> None:
    """Write `metrics.json`, `per_image.parquet`, `figures/` and `report.html`.

    Args:
        evaluation: Results.
        folder: Folder to write into.
    """
    scores = [each for method_scores in evaluation.scores.values() for each in method_scores]
    write_table(scores_to_table(scores, evaluation.test.classes), folder / PER_IMAGE)
    figures = plot_figures(evaluation, folder / "figures")
    _write_page(evaluation, figures, folder / PAGE)
    write_json(folder / RESULTS, finite(evaluation.record()))
