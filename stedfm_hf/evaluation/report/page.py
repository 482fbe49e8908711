"""The page of a report: one self-contained HTML file, which says what was done and how far it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedfm_hf.evaluation.probe import C_GRID
from stedfm_hf.evaluation.report.evaluation import Evaluation, in_short
from stedfm_hf.evaluation.report.figures import LEAST_ANSWERS, WORDS, plot_figures
from stedfm_hf.evaluation.report.shared import (
    LEVEL,
    NONE,
    PAGE,
    RESULTS,
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
from stedfm_hf.labels.splits import limitations_of
from stedfm_hf.reports import ReportFigure, Section, Table, write_page
from stedfm_hf.runs import counted, write_json

IN_TABLE = {
    "classes": ("accuracy", "balanced_accuracy", "macro_f1"),
    "multilabel": ("label_accuracy", "macro_f1", "micro_f1", "mean_average_precision"),
    "regression": ("r2", "pearson_r", "mae", "rmse"),
}
"""Metrics of the table of scores; of calibration there is a section of its own."""
_IN_PERCENT = {"accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "label_accuracy", "mean_average_precision"}
_BASELINES = {
    "untrained": "The untrained network has the architecture of the first model, random weights, and an input "
    "standardised to these images: what it reaches comes from the architecture, not from learning.",
    "histogram": "The intensity histogram (32 bins) asks whether brightness alone gives the labels away.",
    "texture": "Texture: grey-level co-occurrence (32 levels, distances 1, 2, 4) and local binary patterns "
    "(radius 1 and 2) of scikit-image.",
    "pixels": "Raw-pixel PCA: at most 64 components of the images resized to 64 x 64 pixels.",
    "log-spectrum": "Log-spectrum PCA: at most 64 components of the logarithm of the power spectrum of windows of "
    "64 x 64 pixels.",
    "imagenet": "The ImageNet ViT-S was trained on photographs; images are resized for it, as three channels.",
    "chance": "Chance always gives the same answer: the most frequent class of the labelled images, or the mean.",
}


def write_page_of(evaluation: Evaluation, figures: Mapping[str, Path], path: Path) -> Path:
    """Writes `report.html`; figures are PNG files by name."""
    sections = [_material(evaluation), _scores(evaluation, figures)]
    if evaluation.comparisons:
        sections.append(_comparisons(evaluation))
    sections += _classes(evaluation, figures)
    if "calibration" in figures:
        sections.append(_calibration(evaluation, figures))
    sections.append(_method(evaluation))
    sections += left_out("Images that could not be read", evaluation.failed)
    what = "Probe" if evaluation.command == "evaluate probe" else "Nearest neighbours"
    simulated = " (simulated images)" if evaluation.test.simulated else ""
    classes = {"classes": str(len(evaluation.test.classes))} if evaluation.test.classes else {}
    return write_page(
        path,
        title=f"{what}: {evaluation.test.name}{simulated}",
        lead=" ".join(summary(evaluation)),
        facts=facts_of(evaluation.splits.facts(), evaluation.test, **classes),
        sections=sections,
        footer=f"Made by `stedfm {evaluation.command}` of the package stedfm-hf. This file holds all it shows; the "
        "figures lie beside it as PNG and SVG in the folder figures, all numbers in results.json and results.parquet, "
        "every answer in predictions.parquet.",
    )


def summary(evaluation: Evaluation) -> list[str]:
    """What came out, one sentence a line; the page opens with it."""
    limitations = limitations_of(evaluation.test)
    lines = caveats(limitations, simulated=evaluation.test.simulated)
    first, setting = evaluation.contestants[0], evaluation.main_setting
    row = evaluation.row(first.key, setting)
    lines.append(f"{first.name} reaches {_with_interval(evaluation, row)}{_setting_words(evaluation, setting)}.")
    if not limitations:
        beaten = [
            each
            for each in evaluation.comparisons
            if (each["model"], each["setting"]) == (first.key, setting) and each["other"] != "chance"
        ]
        if words := verdicts(beaten, evaluation.name):
            lines.append(f"It is {words}.")
    return lines


def _setting_words(evaluation: Evaluation, setting: str) -> str:
    if evaluation.command != "evaluate probe":
        return f" by {setting}" if setting[0].isdigit() else f" with {setting}"
    if setting == "all":
        return f" with all {evaluation.splits.facts()['train']['images']} labelled images of train"
    return f" with {setting} labelled images" + (" of each class" if evaluation.test.task != "regression" else "")


def _with_interval(evaluation: Evaluation, row: Mapping[str, Any]) -> str:
    value = _number(evaluation.primary, row[evaluation.primary]["mean"])
    ends = row["interval"]
    name = {"r2": "an R² of", "label_accuracy": "a share of labels right of"}.get(evaluation.primary, "an accuracy of")
    if ends is None:
        return f"{name} {value}"
    low, high = (_number(evaluation.primary, end) for end in ends)
    return f"{name} {value} (95\u00a0% interval {low} to {high})"


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return NONE
    return f"{100 * value:.1f}\u00a0%" if metric in _IN_PERCENT else f"{value:.3g}"


def _mean_sd(metric: str, found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return NONE
    if metric not in _IN_PERCENT:
        text, spread = f"{found['mean']:.3f}", found["sd"]
        return text if spread is None else f"{text} ± {spread:.3f}"
    return f"{100 * found['mean']:.1f}" + ("" if found["sd"] is None else f" ± {100 * found['sd']:.1f}")


def _material(evaluation: Evaluation) -> Section:
    splits = evaluation.splits
    names = list(splits.named())
    how, *notes = evaluation.notes()
    checked = "" if splits.leave_one_out else " No source image is in two splits; this was checked."
    text = [how + checked, *notes, *[SIMULATED] * evaluation.test.simulated]
    if evaluation.unlabelled:
        text.append(f"{evaluation.unlabelled} images without a label were left out.")
    if evaluation.failed:
        text.append(f"{counted(len(evaluation.failed), 'image')} could not be read: left out, and named below.")
    facts = splits.facts()
    rows = [(name, *(str(facts[split]["classes"][name]) for split in names)) for name in evaluation.test.classes]
    rows.append(("images", *(str(facts[split]["images"]) for split in names)))
    rows.append(("source images", *(str(facts[split]["sources"]) for split in names)))
    return Section("What was learned from and tested on", text, table=Table(("class", *names), rows))


def _scores(evaluation: Evaluation, figures: Mapping[str, Path]) -> Section:
    probe = evaluation.command == "evaluate probe"
    name = "curve" if probe else "votes"
    alt = f"{WORDS[evaluation.primary]} of all models and baselines over {'labelled images' if probe else 'votes'}"
    metrics = [metric for metric in IN_TABLE[evaluation.test.task] if any(metric in row for row in evaluation.summary)]
    header = (
        "model",
        ("labelled" if evaluation.test.task == "regression" else "labels") if probe else "neighbours",
        *(WORDS[metric] + (", %" if metric in _IN_PERCENT else "") for metric in metrics),
        "95 % interval",
    )
    rows = []
    for setting in reversed(evaluation.order):
        for each in evaluation.contestants:
            row = evaluation.row(each.key, setting)
            ends = row["interval"]
            interval = NONE if ends is None else f"{_bare(evaluation, ends[0])} to {_bare(evaluation, ends[1])}"
            rows.append(
                (
                    unbroken(each.name),
                    in_short(setting),
                    *(_mean_sd(metric, row.get(metric)) for metric in metrics),
                    interval,
                )
            )
    runs = max(row["runs"] for row in evaluation.summary)
    spread = f"Mean ± standard deviation over {runs} draws of the labelled images. " if probe and runs > 1 else ""
    if "reference" in evaluation.order[0]:
        spread = f"Mean ± standard deviation over {runs} values of k. "
    caption = (
        f"{spread}Intervals (95 %) are of the {WORDS[evaluation.primary]}: over source images of the test, which are "
        "the independent units; another draw of the labelled images is not in them."
    )
    picture = ReportFigure.from_png(figures[name], alt, "Bars: one standard deviation over draws." if spread else "")
    return Section("Scores", (), [picture], Table(header, rows, caption, strong=0))


def _bare(evaluation: Evaluation, value: float) -> str:
    return f"{100 * value:.1f}" if evaluation.primary in _IN_PERCENT else f"{value:.3f}"


def _comparisons(evaluation: Evaluation) -> Section:
    regression, probe = evaluation.test.task == "regression", evaluation.command == "evaluate probe"

    def number(value: float) -> str:
        return f"{value:+.3g}" if regression else f"{100 * value:+.1f}"

    return which_differ(
        evaluation.comparisons,
        first=evaluation.contestants[0].name,
        alone=sum(each.kind == "model" for each in evaluation.contestants) == 1,
        noun="models",
        name=evaluation.name,
        header=(
            "labels" if probe else "neighbours",
            "gain in squared error" if regression else "difference, points",
            "95 % interval",
        ),
        cells=lambda each: (
            in_short(each["setting"]),
            number(each["difference"]),
            f"{number(each['low'])} to {number(each['high'])}",
        ),
        text="Both models meet the same images, with the same labelled images drawn. The score of an image is its "
        "mean over the draws. If two models were alike, swapping their scores on a source image would change nothing: "
        "p is the share of 10,000 random swaps with a difference as large (two-sided). All tests of this page are one "
        f"family, corrected by Holm's method; below {LEVEL} they are called different.",
        limited=bool(limitations_of(evaluation.test)),
    )


def _classes(evaluation: Evaluation, figures: Mapping[str, Path]) -> list[Section]:
    last = evaluation.main_setting
    sections = []
    if "confusion" in figures:
        rows = []
        for each in evaluation.contestants:
            recall = evaluation.row(each.key, last)["recall_per_class"]
            rows.append((unbroken(each.name), *(NONE if value is None else f"{100 * value:.0f}" for value in recall)))
        table = Table(
            ("recall, %", *evaluation.test.classes), rows, "Share of the images of a class that were found.", strong=0
        )
        words = f"{'labels per class' if evaluation.command == 'evaluate probe' else 'vote'}: {last}"
        caption = f"Each row is a true class, in percent of its images; columns are the answers ({words})."
        picture = ReportFigure.from_png(figures["confusion"], "Confusion matrices of all models", caption)
        sections.append(Section("Which classes are mistaken for which", (), [picture], table))
    if "predicted" in figures:
        picture = ReportFigure.from_png(
            figures["predicted"], "Predicted against true numbers", "The first draw of each."
        )
        sections.append(Section("Predicted and true", (), [picture]))
    return sections


def _calibration(evaluation: Evaluation, figures: Mapping[str, Path]) -> Section:
    text = [
        "An answer's confidence is its probability. On the dotted line, answers of a confidence are right as often as "
        "it says; below it the model is too sure of itself. The calibration error is the mean distance from the line."
    ]
    last = evaluation.order[-1]
    caption = f"Labels per class: {last}. Every point stands for {LEAST_ANSWERS} answers or more."
    picture = ReportFigure.from_png(figures["calibration"], "Share of right answers over confidence", caption)
    metrics = ("expected_calibration_error", "brier_score")
    settings = (evaluation.order[0], last) if len(evaluation.order) > 1 else (last,)
    header = ("model", *(f"{WORDS[metric]}, {setting} labels" for setting in settings for metric in metrics))
    rows = []
    for each in evaluation.contestants:
        found = [evaluation.row(each.key, setting).get(metric) for setting in settings for metric in metrics]
        rows.append((unbroken(each.name), *(_mean_sd("", value) for value in found)))
    table = Table(
        header, rows, "Lower is better. The Brier score is the squared error of the probabilities, 0 to 2.", 0
    )
    return Section("Can the probabilities be taken at their word?", text, [picture], table)


def _method(evaluation: Evaluation) -> Section:
    text = [_how(evaluation), *sentences_on(evaluation.contestants, _BASELINES)]
    if all(each.key != "imagenet" for each in evaluation.contestants):
        text.append("No ViT-S trained on photographs stands beside them: it was not to be had, or not wanted.")
    return how_it_was_done(text, evaluation.contestants, "model")


def _how(evaluation: Evaluation) -> str:
    if evaluation.command != "evaluate probe":
        if evaluation.settings["protocol"] == "reference":
            return (
                "The reference protocol: the validation split is asked, by cosine similarity, with a plain vote for "
                "every k from 3 to 10; ties go to the first class, and an answer needs two votes. It is repeated for "
                "comparison with published figures; the small gallery and the mean over k are its own."
            )
        return (
            "Nothing is trained on the labels: each image asks the k images with the most similar vectors (cosine), "
            "which vote; of several classes with the most votes, the one with the nearest image wins. Weighted votes "
            "count exp(similarity / 0.07). Images of the same source image do not vote for each other."
        )
    chosen = {run.selected_on for run in evaluation.runs if run.selected_on}
    on = {
        "validation": "by the loss on the validation part",
        "cross-validation": "by cross-validation over the source images of the labelled images",
        "fixed": "as 0.1, as there were too few source images to choose",
    }
    how = " or ".join(on[each] for each in sorted(chosen))
    kind = {
        "classes": "a multinomial logistic regression",
        "multilabel": "a logistic regression for each class",
        "regression": "a ridge regression",
    }[evaluation.test.task]
    return (
        f"The networks are frozen. On their vectors (mean over patches), {kind} is fitted to the labelled images. "
        f"Vectors are standardised by all images of train, whose labels this does not use. The strength of its L2 "
        f"penalty was chosen of {len(C_GRID)} values, for every draw anew, {how}; never on the test. Draws are "
        "without replacement from train, the same for all models, and a smaller one is part of a larger one."
    )


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write `results.json`, `results.parquet`, `predictions.parquet`, `figures/` and `report.html`."""
    write_table(evaluation.results_table(), folder / "results.parquet")
    write_table(evaluation.predictions_table(), folder / "predictions.parquet")
    figures = plot_figures(evaluation, folder / "figures")
    write_page_of(evaluation, figures, folder / PAGE)
    write_json(folder / RESULTS, finite(evaluation.record()))
