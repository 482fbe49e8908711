"""HTML page of `evaluate knn` and `evaluate probe`: results, protocol and limitations in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedfm_hf.evaluation.probe import C_GRID
from stedfm_hf.evaluation.report import sentences
from stedfm_hf.evaluation.report.cells import NONE, nonbreaking
from stedfm_hf.evaluation.report.evaluation import Evaluation, short_setting
from stedfm_hf.evaluation.report.figures import METRIC_NAMES, MIN_PREDICTIONS, plot_figures
from stedfm_hf.evaluation.report.files import PAGE, RESULTS, finite, write_table
from stedfm_hf.evaluation.report.sections import comparison_section, failed_section, method_section, write_report_page
from stedfm_hf.labels.splits import limitations_of
from stedfm_hf.reports import ReportFigure, Section, Table
from stedfm_hf.runs import counted, write_json

IN_TABLE = {
    "classes": ("accuracy", "balanced_accuracy", "macro_f1"),
    "multilabel": ("label_accuracy", "macro_f1", "micro_f1", "mean_average_precision"),
    "regression": ("r2", "pearson_r", "mae", "rmse"),
}
"""Metrics of the table of scores. Calibration metrics have a separate section."""
_IN_PERCENT = {"accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "label_accuracy", "mean_average_precision"}
BASELINE_SENTENCES = {
    "untrained": "Untrained network: the architecture of the first model with random weights; its input is normalised "
    "by the mean and standard deviation of these images. Its scores come from the architecture, not from training.",
    "histogram": "Intensity histogram: 32 bins; it shows whether brightness alone predicts the labels.",
    "texture": "Texture: grey-level co-occurrence matrices (32 levels, distances of 1, 2 and 4 pixels) and local "
    "binary patterns (radii of 1 and 2 pixels) of scikit-image.",
    "morphology": "Morphology: 13 features of the bright spots that wavelets detect (size, shape, brightness, "
    "distance and density) and of the image (blur, entropy, signal-to-noise ratio), standardised.",
    "pixels": "Raw-pixel PCA: up to 64 principal components of the images, resized to 64 x 64 pixels.",
    "log-spectrum": "Log-spectrum PCA: up to 64 principal components of the logarithm of the power spectrum, averaged "
    "over tiles of 64 x 64 pixels.",
    "imagenet": "ImageNet ViT-S: a network trained on photographs; images are resized and repeated in three channels.",
    "chance": "Chance: the most frequent class of the labelled images (or their mean) for every test image; in a "
    "retrieval, the expected value of random orders.",
}
"""Description of each baseline, by key."""


def _write_page(evaluation: Evaluation, figures: Mapping[str, Path], path: Path) -> None:
    """Write the HTML page."""
    sections = [_data(evaluation), _scores(evaluation, figures)]
    if evaluation.comparisons:
        sections.append(_comparisons(evaluation))
    sections += _classes(evaluation, figures)
    if "calibration" in figures:
        sections.append(_calibration(evaluation, figures))
    sections.append(_method(evaluation))
    sections += failed_section("Images that could not be read", evaluation.failed)
    write_report_page(
        path,
        command=evaluation.command,
        title="Linear probe" if evaluation.command == "evaluate probe" else "k-nearest neighbours",
        lead=summary(evaluation),
        test=evaluation.test,
        splits=evaluation.splits.facts(),
        facts={"classes": str(len(evaluation.test.classes))} if evaluation.test.classes else {},
        sections=sections,
        files="the figures as PNG and SVG (figures), all metrics (results.json, results.parquet) and all predictions "
        "(predictions.parquet)",
    )


def summary(evaluation: Evaluation) -> list[str]:
    """Return the main results as sentences, which open the page.

    Args:
        evaluation: Results.
    """
    limitations = limitations_of(evaluation.test)
    lines = sentences.limitations(limitations, simulated=evaluation.test.simulated)
    first, setting = evaluation.methods[0], evaluation.main_setting
    row = evaluation.row(first.key, setting)
    lines.append(f"{first.name} reaches {_with_interval(evaluation, row)}{_setting_words(evaluation, setting)}.")
    compared = evaluation.comparisons_of(first.key, setting)
    if not limitations and (words := sentences.verdicts(compared, evaluation.name)):
        lines.append(f"It is {words}.")
    return lines


def _setting_words(evaluation: Evaluation, setting: str) -> str:
    """Describe a setting at the end of a sentence."""
    if evaluation.command != "evaluate probe":
        return f" with {setting}"
    if setting == "all":
        return f" with all {evaluation.splits.facts()['train']['images']} labelled training images"
    return f" with {setting} labelled images" + (" per class" if evaluation.test.task != "regression" else "")


def _with_interval(evaluation: Evaluation, row: Mapping[str, Any]) -> str:
    """Format the primary metric with its confidence interval."""
    value = _number(evaluation.primary, row[evaluation.primary]["mean"])
    ends = row["interval"]
    name = {"r2": "an R² of", "label_accuracy": "a label accuracy of"}.get(evaluation.primary, "an accuracy of")
    if ends is None:
        return f"{name} {value}"
    low, high = (_number(evaluation.primary, end) for end in ends)
    return f"{name} {value} (95\u00a0% confidence interval {low} to {high})"


def _number(metric: str, value: float | None) -> str:
    """Format a metric."""
    if value is None:
        return NONE
    return f"{100 * value:.1f}\u00a0%" if metric in _IN_PERCENT else f"{value:.3g}"


def _mean_sd(metric: str, row: Mapping[str, Any] | None) -> str:
    """Format mean and standard deviation."""
    if row is None or row["mean"] is None:
        return NONE
    if metric not in _IN_PERCENT:
        text, sd = f"{row['mean']:.3f}", row["sd"]
        return text if sd is None else f"{text} ± {sd:.3f}"
    return f"{100 * row['mean']:.1f}" + ("" if row["sd"] is None else f" ± {100 * row['sd']:.1f}")


def _data(evaluation: Evaluation) -> Section:
    """Return the section on the images."""
    splits = evaluation.splits
    names = list(splits.named())
    description, *notes = evaluation.notes()
    checked = "" if splits.leave_one_out else " No source image is in two splits."
    text = [description + checked, *notes, *[sentences.SIMULATED] * evaluation.test.simulated]
    if evaluation.unlabelled:
        text.append(f"{counted(evaluation.unlabelled, 'image')} without a label excluded.")
    if evaluation.failed:
        text.append(f"{counted(len(evaluation.failed), 'image')} could not be read; see the last section.")
    facts = splits.facts()
    rows = [(name, *(str(facts[split]["classes"][name]) for split in names)) for name in evaluation.test.classes]
    rows.append(("images", *(str(facts[split]["images"]) for split in names)))
    rows.append(("source images", *(str(facts[split]["sources"]) for split in names)))
    return Section("Data", text, table=Table(("class", *names), rows))


def _scores(evaluation: Evaluation, figures: Mapping[str, Path]) -> Section:
    """Return the section with the scores of all methods."""
    probe = evaluation.command == "evaluate probe"
    name = "curve" if probe else "neighbours"
    over = "labelled images" if probe else "neighbours"
    alt = f"{METRIC_NAMES[evaluation.primary]} of all models and baselines over the number of {over}"
    metrics = [metric for metric in IN_TABLE[evaluation.test.task] if any(metric in row for row in evaluation.summary)]
    header = (
        "method",
        ("labelled images" if evaluation.test.task == "regression" else "labels per class") if probe else "k",
        *(METRIC_NAMES[metric] + (", %" if metric in _IN_PERCENT else "") for metric in metrics),
        "95 % CI",
    )
    settings = evaluation.order[::-1]
    main = settings.index(evaluation.main_setting) * len(evaluation.methods)
    rows = []
    for setting in settings:
        for each in evaluation.methods:
            row = evaluation.row(each.key, setting)
            ends = row["interval"]
            interval = NONE if ends is None else f"{_bare(evaluation, ends[0])} to {_bare(evaluation, ends[1])}"
            rows.append(
                (
                    nonbreaking(each.name),
                    short_setting(setting),
                    *(_mean_sd(metric, row.get(metric)) for metric in metrics),
                    interval,
                )
            )
    runs = max(row["runs"] for row in evaluation.summary)
    repeats = (
        f"Mean ± standard deviation over {runs} random samples of the labelled images. " if probe and runs > 1 else ""
    )
    if "reference" in evaluation.order[0]:
        repeats = f"Mean ± standard deviation over {runs} values of k. "
    sampling = "It does not include the variation between samples of labelled images. " if probe else ""
    caption = (
        f"{repeats}CI: 95 % confidence interval of the {METRIC_NAMES[evaluation.primary]} over the source images "
        "of the "
        f"test split. {sampling}{sentences.OVERLAPPING}"
    )
    figure = ReportFigure.from_png(
        figures[name],
        alt,
        "Error bars: one standard deviation over random samples of the labelled images." if repeats and probe else "",
    )
    return Section("Scores", (), [figure], Table(header, rows, caption, strong=main))


def _bare(evaluation: Evaluation, value: float) -> str:
    """Format the primary metric without a unit."""
    return f"{100 * value:.1f}" if evaluation.primary in _IN_PERCENT else f"{value:.3f}"


def _comparisons(evaluation: Evaluation) -> Section:
    """Return the section of the pairwise comparisons."""
    regression, probe = evaluation.test.task == "regression", evaluation.command == "evaluate probe"

    def number(value: float) -> str:
        return f"{value:+.3g}" if regression else f"{100 * value:+.1f}"

    return comparison_section(
        evaluation.comparisons,
        evaluation.methods,
        header=(
            ("labelled images" if regression else "labels per class") if probe else "k",
            "decrease of squared error" if regression else "difference, points",
            "95 % CI",
        ),
        cells=lambda each: (
            short_setting(each["setting"]),
            number(each["difference"]),
            f"{number(each['low'])} to {number(each['high'])}",
        ),
        text=("" if regression else "Differences are in percentage points. ")
        + f"{sentences.permutation_tests('on the same test images')} {sentences.NOT_SIGNIFICANT}",
        limited=bool(limitations_of(evaluation.test)),
    )


def _classes(evaluation: Evaluation, figures: Mapping[str, Path]) -> list[Section]:
    """Return the sections on classes, or on predicted numbers."""
    last = evaluation.main_setting
    sections = []
    if "confusion" in figures:
        rows = []
        for each in evaluation.methods:
            recall = evaluation.row(each.key, last)["recall_per_class"]
            rows.append(
                (nonbreaking(each.name), *(NONE if value is None else f"{100 * value:.0f}" for value in recall))
            )
        table = Table(
            ("recall, %", *evaluation.test.classes),
            rows,
            "Fraction of the images of each class that are predicted correctly.",
            strong=0,
        )
        words = f"labels per class: {last}" if evaluation.command == "evaluate probe" else last
        caption = f"Rows: true classes; columns: predicted classes; numbers: percent of the row ({words})."
        figure = ReportFigure.from_png(figures["confusion"], "Confusion matrices of all models", caption)
        sections.append(Section("Confusion matrices", (), [figure], table))
    if "predicted" in figures:
        figure = ReportFigure.from_png(
            figures["predicted"],
            "Predicted over true values",
            "One point per test image; the dotted line marks perfect predictions. First run of each method.",
        )
        sections.append(Section("Predicted and true values", (), [figure]))
    return sections


def _calibration(evaluation: Evaluation, figures: Mapping[str, Path]) -> Section:
    """Return the section on calibration."""
    text = [
        "The confidence of a prediction is its highest probability. Predictions on the dotted line are calibrated: a "
        "confidence of 0.8 is correct in 80 % of the cases. Below the line, a method is overconfident. The expected "
        "calibration error is the mean distance from the line."
    ]
    last = evaluation.order[-1]
    caption = f"Labels per class: {last}. Each point is the mean of at least {MIN_PREDICTIONS} predictions."
    figure = ReportFigure.from_png(figures["calibration"], "Accuracy over confidence", caption)
    metrics = ("expected_calibration_error", "brier_score")
    settings = (evaluation.order[0], last) if len(evaluation.order) > 1 else (last,)
    header = (
        "method",
        *(f"{name}, {setting} labels" for setting in settings for name in ("ECE", "Brier score")),
    )
    rows = []
    for each in evaluation.methods:
        found = [evaluation.row(each.key, setting).get(metric) for setting in settings for metric in metrics]
        rows.append((nonbreaking(each.name), *(_mean_sd("", value) for value in found)))
    table = Table(
        header,
        rows,
        "ECE: expected calibration error, from 0 to 1. Brier score: squared error of the probabilities, from 0 to 2. "
        "Lower is better for both. Labels: labelled images per class.",
        0,
    )
    return Section("Calibration", text, [figure], table)


def _method(evaluation: Evaluation) -> Section:
    """Return the section on the protocol."""
    text = [_protocol(evaluation), *sentences.baselines(evaluation.methods, BASELINE_SENTENCES)]
    if all(each.key != "imagenet" for each in evaluation.methods):
        text.append(
            "There is no comparison with a ViT-S trained on photographs: it was not available or not requested."
        )
    return method_section(text, evaluation.methods, "method")


def _protocol(evaluation: Evaluation) -> str:
    """Describe the protocol."""
    if evaluation.command != "evaluate probe":
        if evaluation.settings["protocol"] == "reference":
            return (
                "Reference protocol, for comparison with published results: each test image is classified by a "
                "majority vote of its k most similar images (cosine similarity) of the validation split, for each k "
                "from 3 to 10. Ties go to the first class, and a prediction needs two votes. Metrics are means over k."
            )
        return (
            "Each test image is classified by a majority vote of its k most similar training images (cosine "
            "similarity of their features), without training on the labels. Ties go to the class of the nearest "
            "image. Weighted votes have the weight exp(similarity / 0.07). Images of the same source image do "
            "not vote."
        )
    selected_on = {run.selected_on for run in evaluation.runs if run.selected_on}
    words = {
        "validation": "by the loss on the validation split",
        "cross-validation": "by cross-validation over the source images of the labelled images",
        "fixed": "as 0.1, because there are too few source images to select it",
    }
    selected = " or ".join(words[each] for each in sorted(selected_on))
    kind = {
        "classes": "a multinomial logistic regression",
        "multilabel": "a logistic regression for each class",
        "regression": "a ridge regression",
    }[evaluation.test.task]
    return (
        f"The models are frozen. On their embeddings (mean over patches), {kind} is fitted to the labelled images. "
        "Features are standardised by all training images, without their labels. For each sample of labelled images, "
        f"C, the inverse strength of the L2 penalty, is selected from {len(C_GRID)} values {selected}, never on the "
        "test split. Labelled images are sampled without replacement and are the same for all methods; "
        "smaller samples are part of larger ones."
    )


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write `results.json`, `results.parquet`, `predictions.parquet`, `figures/` and `report.html`.

    Args:
        evaluation: Results.
        folder: Folder to write into.
    """
    write_table(evaluation.results_table(), folder / "results.parquet")
    write_table(evaluation.predictions_table(), folder / "predictions.parquet")
    figures = plot_figures(evaluation, folder / "figures")
    _write_page(evaluation, figures, folder / PAGE)
    write_json(folder / RESULTS, finite(evaluation.record()))
