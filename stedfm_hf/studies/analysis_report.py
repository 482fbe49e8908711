"""Report of an analysis: one page with figures and tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stedfm_hf.reports.figures import save_figure
from stedfm_hf.reports.html import ReportFigure, Section, Table, write_page
from stedfm_hf.studies import analysis_figures as figures
from stedfm_hf.studies.analysis import Analysis
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED, Study, all_images, changed_note

QUESTIONS = {
    CHOOSE: "Do participants prefer a group?",
    CLASSIFY: "Do participants name the images of one group better than those of another?",
    REAL_OR_GENERATED: "Do participants tell real from generated images?",
    RANK: "Do the images of one group rank higher?",
}


def write_analysis_report(folder: Path, analysis: Analysis) -> Path:
    """Write `report.html` and `figures/`.

    Args:
        folder: Folder to write to.
        analysis: The analysis.

    Returns:
        Path of the page.
    """
    study, kept = analysis.study, analysis.kept
    sections = [_scores(folder, analysis), _differences(analysis)]
    if analysis.strengths is not None:
        sections.append(_ranking(folder, analysis))
    if analysis.confusion:
        caption = "Fraction of the answers to the images of each class, over all participants. {} answers."
        shown = []
        for number, (group, figure) in enumerate(figures.confusion_figures(analysis).items(), 1):
            total = int(analysis.confusion[group].to_numpy().sum())
            alt = f"Confusion matrix of {group}"
            shown += _figure(folder, figure, f"confusion_{number}", alt, caption.format(total))
        sections.append(Section("Confusion matrices", [], shown))
    if not analysis.detection.empty:
        sections.append(_detection(folder, analysis))
    if analysis.agreement is not None:
        sections.append(_agreement(folder, analysis))
    sections += [_mixed(analysis), _exclusions(analysis)]
    question = QUESTIONS[study.type]
    if study.type == CLASSIFY and len(analysis.scores.groups) == 1:
        question = "Do participants name the structures better than by chance?"
    return write_page(
        folder / "report.html",
        title=study.title,
        lead=f"Question to the participants: “{study.question}” {question} {_verdict(analysis.p)}",
        facts={
            "participants": str(len(kept.participants) - kept.excluded),
            "answers": f"{len(kept.answers):,}",
            "images": f"{_images(study):,}",
            "dates": _dates(kept.answers["answered_at"]),
            "excluded participants": str(kept.excluded),
            "p-value": _p(analysis.p),
        },
        sections=[each for each in sections if each is not None],
        footer="Protocol: reference (definitions of the published analysis)." if analysis.reference else "",
    )


def _images(study: Study) -> int:
    """Count the images of the stimuli, without those of practice and attention trials."""
    return len(all_images(replace(study, practice=(), attention=(), example=None)))


def _dates(answered_at: pd.Series) -> str:
    """Return the first and the last day on which answers were given; simulated answers have no times."""
    known = pd.to_datetime(answered_at.dropna(), utc=True)
    if known.empty:
        return "simulated"
    first, last = known.min().date(), known.max().date()
    return f"{first}" if first == last else f"{first} to {last}"


def _scores(folder: Path, analysis: Analysis) -> Section:
    """Show the score of each group and participant."""
    scores, reference = analysis.scores, analysis.reference
    kind = "mean ± standard deviation" if reference else "mean with its 95 % confidence interval"
    caption = f"Grey: one line per participant. Diamonds: {kind} over participants." + (
        " Dashed: chance." if scores.chance is not None else ""
    )
    shown = _figure(folder, figures.scores_figure(analysis), "scores", f"Scores: {scores.name}", caption)
    head = ["group", "participants", "mean", "sd", "mean ± sd" if reference else "95 % interval"]
    with_chance = scores.chance is not None
    rows = [
        [each.group, str(each.participants), _number(each.mean), _number(each.sd), _interval(each.low, each.high)]
        + ([_p(each.p_chance)] if with_chance else [])
        for each in analysis.tests.means
    ]
    note = "p (chance): paired permutation test over participants, corrected by Holm's method." if with_chance else ""
    if analysis.study.type == RANK:
        kept = len(analysis.kept.participants) - analysis.kept.excluded
        note = f"{len(analysis.rankings)} of {kept} participants finished the ranking; the others are not counted."
    if not reference and any(each.participants and not np.isfinite(each.low) for each in analysis.tests.means):
        note += " Groups with fewer than three participants, or with equal scores, have no interval."
    title = scores.name[0].upper() + scores.name[1:]
    return Section(title, [], shown, Table(head + ["p (chance)"] * with_chance, rows, note))


def _differences(analysis: Analysis) -> Section | None:
    """Show the tests of differences between groups."""
    tests = analysis.tests
    if len(tests.means) < 2:
        return None
    within = "labels permuted among all scores, F statistic" if analysis.reference else "permuted within participants"
    ranked = "scores treated as independent" if analysis.reference else "ranks permuted within participants"
    text = [
        f"Permutation test over participants: {_p_text(tests.p_participants)} ({within}). "
        f"Permutation test over stimuli: {_p_text(tests.p_stimuli)}. "
        f"Kruskal-Wallis test: H = {_number(tests.kruskal, 2)}, {_p_text(tests.p_kruskal)} ({ranked}).",
        "A small p-value over participants says that other people would agree about these images. A small one over "
        "stimuli says that the result holds for other images like these. A claim about both needs both.",
    ]
    head = ["pair", "difference", "95 % interval", "p (permutation)", "p (Mann-Whitney)"]
    rows = [
        [
            f"{each.first} minus {each.second}",
            f"{each.difference:+.3f}",
            _interval(each.low, each.high),
            _p(each.p),
            _p(each.p_mann_whitney),
        ]
        for each in tests.pairs
    ]
    note = (
        "P-values are not corrected, as in the published analysis."
        if analysis.reference
        else "Scores (permutation) and their ranks (Mann-Whitney) are permuted within participants. P-values of each "
        "column are corrected by Holm's method."
    )
    if not rows:
        return Section("Differences between groups", [*text, "Pairs were not compared."])
    return Section("Differences between groups", text, table=Table(head, rows, note))


def _ranking(folder: Path, analysis: Analysis) -> Section:
    """Show the Bradley-Terry strengths, and the groups along the ranks."""
    fitted = analysis.strengths
    assert fitted is not None
    caption = "Strength of each image in the Bradley-Terry model of all comparisons, with its 95 % interval."
    shown = _figure(folder, figures.strengths_figure(analysis), "strengths", "Strength of each image", caption)
    caption = "Mean number of images of each group up to each rank, over participants."
    shown += _figure(folder, figures.ranks_figure(analysis), "ranks", "Groups along the ranks", caption)
    text = [
        f"The most preferred image is {fitted.ranking[0]}, the least preferred {fitted.ranking[-1]}. A difference of "
        "1 in strength means that the stronger image wins 73 % of the comparisons."
    ]
    if np.isfinite(analysis.rank_agreement):
        text.append(f"Mean rank correlation (Kendall) between participants: {analysis.rank_agreement:.2f}.")
    return Section("Ranking", text, shown)


def _detection(folder: Path, analysis: Analysis) -> Section:
    """Show d' and the criterion of each group."""
    shown = _figure(
        folder,
        figures.detection_figure(analysis),
        "detection",
        "Sensitivity d'",
        "Grey: participants. Diamonds: mean over participants.",
    )
    rows = [
        [str(group), str(len(own)), f"{own['d_prime'].mean():+.2f}", f"{own['criterion'].mean():+.2f}"]
        for group, own in analysis.detection.groupby("group", sort=False)
    ]
    bias = "the left image" if analysis.study.is_paired else "the answer “generated”"
    note = f"d′ is 0 if real and generated images are not told apart. A negative criterion is a preference for {bias}."
    return Section("Sensitivity", [], shown, Table(["group", "participants", "d′", "criterion"], rows, note))


def _agreement(folder: Path, analysis: Analysis) -> Section:
    """Show how far participants agree."""
    found = analysis.agreement
    assert found is not None
    alpha = f"Krippendorff's alpha is {_number(found.alpha, 2)}"
    if np.isfinite(found.alpha_low):
        alpha += f" (95 % interval {found.alpha_low:.2f} to {found.alpha_high:.2f}, over {found.stimuli} stimuli)"
    text = [
        f"{alpha}; Fleiss' kappa is {_number(found.fleiss, 2)}, over the {found.fleiss_stimuli} stimuli with "
        "the most answers. 1 is perfect agreement, 0 agreement by chance."
    ]
    caption = (
        "Number of different answers to each stimulus: 1 where all participants agree."
        if analysis.reference
        else "Fraction of the participants who gave the most frequent answer to each stimulus: 1 where all agree. "
        "Dashed: the same after all answers were shuffled between the stimuli."
    )
    shown = _figure(folder, figures.agreement_figure(analysis), "agreement", "Agreement by stimulus", caption)
    return Section("Agreement", text, shown)


def _mixed(analysis: Analysis) -> Section | None:
    """Show the mixed model."""
    found = analysis.mixed
    if found is None:
        return None
    rows = [
        [each.group, f"{each.log_odds:+.2f}", _interval(each.low, each.high, 2), f"{np.exp(each.log_odds):.2f}"]
        for each in found.effects
    ]
    deviations = {
        "participants": found.participant_sd,
        "preferences of participants for groups": found.preference_sd,
        "stimuli": found.stimulus_sd,
    }
    stated = ", ".join(f"{value:.2f} ({name})" for name, value in deviations.items() if np.isfinite(value))
    compared = "" if analysis.study.type == CHOOSE else f", compared with {found.baseline}"
    note = f"Log odds of {found.event}{compared}. Standard deviations of the random effects: {stated}."
    text = ["The model takes into account that the same participants answered about the same stimuli."]
    head = ["group", "log odds", "95 % interval", "odds ratio"]
    return Section("Mixed model", text, table=Table(head, rows, note))


def _exclusions(analysis: Analysis) -> Section:
    """Show the rules, and what they excluded."""
    kept, rules = analysis.kept, analysis.study.exclude
    stated = [f"{name} {value:g}" for name, value in vars(rules).items() if value is not None]
    text = [f"Rules of the study file: {', '.join(stated)}." if stated else "The study file states no rules."]
    if analysis.changed:
        text.append(f"Note: {changed_note(analysis.changed)}.")
    if kept.counts:
        reasons = "; ".join(f"{reason}: {number:,}" for reason, number in kept.counts.items())
        text.append(f"Answers that were not analysed: {reasons}.")
    head, rows = ["participant", "answers", "analysed", "completed"], []
    with_attention = bool(kept.participants["attention"].notna().any())
    participants: Iterable[Any] = kept.participants.itertuples()
    for row in participants:
        cells = [str(row.participant), str(row.answers), str(row.analysed), f"{row.completed:.0%}"]
        if with_attention:
            cells.append("–" if np.isnan(row.attention) else f"{row.attention:.0%}")
        rows.append([*cells, row.excluded or "kept"])
    head += ["attention"] * with_attention
    return Section("Exclusions", text, table=Table([*head, "result"], rows))


def _figure(folder: Path, figure: Figure | None, name: str, alt: str, caption: str) -> list[ReportFigure]:
    if figure is None:
        return []
    return [ReportFigure.from_png(save_figure(figure, folder / "figures", name), alt, caption)]


def _verdict(p: float) -> str:
    if np.isnan(p):
        return "This study has no test of it: it needs at least two groups or participants."
    return f"The answers are {'evidence of it' if p < 0.05 else 'not evidence of it'} ({_p_text(p)})."


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def _interval(low: float, high: float, digits: int = 3) -> str:
    return f"{low:.{digits}f} to {high:.{digits}f}" if np.isfinite(low) else "–"


def _p(value: float) -> str:
    return "–" if not np.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _p_text(value: float) -> str:
    text = _p(value)
    return (f"p {text}" if text[0] == "<" else f"p = {text}").replace(" ", "\N{NO-BREAK SPACE}")
