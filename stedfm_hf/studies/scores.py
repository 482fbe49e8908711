"""One score per participant and group: what the groups of a study are compared by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from stedfm_hf.metrics.statistics import accuracy_interval
from stedfm_hf.studies.exclusions import replay
from stedfm_hf.studies.plan import start_sorter
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, GENERATED, RANK, REAL, Study

TOP = 10
"""Number of images of a ranking whose groups are counted."""
NOT_SCORED = {"other", "unclassifiable"}
"""Classes whose recall the published code leaves out of the accuracy."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of participants.

    Attributes:
        name: What is scored.
        participants: Names of the participants (P,).
        groups: Names of the groups (G,).
        values: Score (P, G); NaN where a participant gave no such answer.
        low: Lower bounds of the 95 % intervals of the proportions (P, G), or NaN where a score is not one proportion.
        high: Upper bounds (P, G).
        chance: Score without any preference or knowledge, or None.
    """

    name: str
    participants: tuple[str, ...]
    groups: tuple[str, ...]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: float | None


def scores_of(study: Study, answers: pd.DataFrame, *, reference: bool = False) -> Scores:
    """Score the participants of a study.

    | task | score | published code |
    |---|---|---|
    | choose | fraction of trials in which the group was chosen | the same |
    | classify | mean recall over the classes of the images | without the classes Other and Unclassifiable |
    | real-or-generated | fraction of right answers; for single images the mean over both kinds | fraction of generated
      images taken for real |
    | rank | fraction of the first ten images | the same |

    Args:
        study: The study.
        answers: Analysed answers.
        reference: Whether to score as the published code did.

    Returns:
        The scores.
    """
    if study.type == CHOOSE:
        cells = {group: answers.assign(score=answers["answer"] == group) for group in study.groups}
        return _proportions("fraction of choices", cells, 1 / len(study.groups))
    if study.type == RANK:
        return _top_ten(study, answers)
    facts = answers.assign(
        group=[study.by_id[each].group for each in answers["stimulus"]],
        truth=np.array(truths(study, answers["stimulus"]), dtype=object),
    )
    if study.type == CLASSIFY:
        return _recalls(study, facts, reference)
    facts["score"] = facts["answer"] == facts["truth"]
    if study.is_paired:
        if reference:
            facts["score"] = ~facts["score"]
        name = "fraction of generated images taken for real" if reference else "fraction of right answers"
        return _proportions(name, {group: facts[facts["group"] == group] for group in study.groups}, 0.5)
    of_generated = facts[facts["truth"] == GENERATED]
    if reference:
        of_generated = of_generated.assign(score=~of_generated["score"])
        cells = {group: of_generated[of_generated["group"] == group] for group in study.groups}
        return _proportions("fraction of generated images taken for real", cells, None)
    right_if_real = facts[facts["truth"] == REAL].groupby("participant")["score"].mean()
    generated = of_generated.groupby(["participant", "group"])["score"].mean().unstack()
    generated = generated.reindex(columns=list(study.groups))
    return _plain("fraction of right answers", (generated.add(right_if_real, axis=0)) / 2, 0.5)


def truths(study: Study, stimuli: pd.Series) -> list[str | None]:
    """Return the right answer of each stimulus, or None; in pairs, it is the real image."""
    return [REAL if study.is_paired else study.by_id[each].truth for each in stimuli]


def rankings_of(study: Study, answers: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return the ranking of each participant who finished it, the most preferred image first.

    Args:
        study: Study of the type `rank`.
        answers: Analysed answers.
    """
    found = {}
    for name, rows in answers.groupby("participant"):
        sorter = start_sorter(study, str(name))
        replay(sorter, rows)
        if sorter.ranking is not None:
            found[str(name)] = sorter.ranking
    return found


def losers(answers: pd.DataFrame) -> list[str]:
    """Return the image that was not preferred in each comparison."""
    pairs = zip(answers["options"], answers["answer"], strict=True)
    return [second if answer == first else first for (first, second), answer in pairs]


def confusion_matrices(study: Study, answers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Count the answers to the images of each class, for each group.

    Args:
        study: Study of the type `classify`.
        answers: Analysed answers.

    Returns:
        Counts (classes, classes) by group: true class in rows, answer in columns, all classes in both.
    """
    classes = list(study.classes)
    groups = np.array([study.by_id[each].group for each in answers["stimulus"]])
    truth = np.array([study.by_id[each].truth for each in answers["stimulus"]], object)
    found = {}
    for group in study.groups:
        chosen = (groups == group) & np.array([each is not None for each in truth])
        counts = pd.crosstab(pd.Series(truth[chosen], name="truth"), pd.Series(answers["answer"].to_numpy()[chosen]))
        found[group] = counts.reindex(index=classes, columns=classes, fill_value=0)
    return found


def detection(study: Study, answers: pd.DataFrame) -> pd.DataFrame:
    """Compute how well each participant tells real from generated images.

    Counts are corrected by adding half an answer of each kind, so that d' is finite. Images in pairs: d' of the
    two-alternative task is the square root of 2 times z of the fraction of right answers. Single images: z of the hits
    (generated images recognised) minus z of the false alarms (real images called generated).

    Args:
        study: Study of the type `real-or-generated`.
        answers: Analysed answers.

    Returns:
        One row per participant and group: `participant`, `group`, `trials`, `hits`, `false_alarms`, `d_prime` and
        `criterion`, which is negative if the participant prefers the answer "generated", or in pairs the left image.

    Source:
        Macmillan and Creelman, Detection theory, 2005; Hautus, 1995 (correction).
    """
    truth = np.array(truths(study, answers["stimulus"]), object)
    facts = answers.assign(
        truth=truth,
        group=[study.by_id[each].group for each in answers["stimulus"]],
        # Signal: the generated image; in pairs, the real image at the left.
        signal=[options[0] == REAL for options in answers["options"]] if study.is_paired else truth == GENERATED,
    )
    if study.is_paired:
        said = [options[0] == answer for options, answer in zip(facts["options"], facts["answer"], strict=True)]
    else:
        said = (facts["answer"] == GENERATED).to_list()
    facts["said"] = np.array(said, bool)
    rows = []
    for name, own in facts.groupby("participant"):
        for group in study.groups:
            of_group = own["group"] == group
            signal = own[of_group & own["signal"]]["said"]
            noise = own[(of_group if study.is_paired else True) & ~own["signal"]]["said"]
            if study.is_paired and not of_group.any() or not study.is_paired and (signal.empty or noise.empty):
                continue
            hit, alarm = _corrected(signal), _corrected(noise)
            right = _corrected(own[of_group]["answer"] == own[of_group]["truth"])
            paired = np.sqrt(2) * norm.ppf(right)
            rows.append(
                {
                    "participant": str(name),
                    "group": group,
                    "trials": int(of_group.sum()) if study.is_paired else len(signal) + len(noise),
                    "hits": int(signal.sum()),
                    "false_alarms": int(noise.sum()),
                    "d_prime": float(paired if study.is_paired else norm.ppf(hit) - norm.ppf(alarm)),
                    "criterion": float(-(norm.ppf(hit) + norm.ppf(alarm)) / 2),
                }
            )
    return pd.DataFrame(rows)


def _corrected(said: pd.Series) -> float:
    return (float(said.sum()) + 0.5) / (len(said) + 1.0)


def _proportions(name: str, cells: dict[str, pd.DataFrame], chance: float | None) -> Scores:
    """Score by the mean of the column `score` of the answers of each group, with Wilson intervals."""
    participants = sorted({str(each) for cell in cells.values() for each in cell["participant"]})
    shape = (len(participants), len(cells))
    values, low, high = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    for column, cell in enumerate(cells.values()):
        for participant, right in cell.groupby("participant")["score"]:
            row = participants.index(str(participant))
            values[row, column] = right.mean()
            low[row, column], high[row, column] = accuracy_interval(right.to_numpy(bool))
    return Scores(name, tuple(participants), tuple(cells), values, low, high, chance)


def _plain(name: str, table: pd.DataFrame, chance: float | None) -> Scores:
    """Score by a table of participants and groups."""
    values, unknown = table.to_numpy(float), np.full(table.shape, np.nan)
    return Scores(name, tuple(map(str, table.index)), tuple(table.columns), values, unknown, unknown, chance)


def _recalls(study: Study, facts: pd.DataFrame, reference: bool) -> Scores:
    """Score by the mean recall over classes."""
    scored = [each for each in study.classes if not (reference and each.lower() in NOT_SCORED)]
    facts = facts[facts["truth"].isin(scored)]
    recall = (facts["answer"] == facts["truth"]).groupby([facts["participant"], facts["group"], facts["truth"]]).mean()
    table = recall.groupby(level=[0, 1]).mean().unstack().reindex(columns=list(study.groups))
    return _plain("mean recall", table, 1 / len(study.classes))


def _top_ten(study: Study, answers: pd.DataFrame) -> Scores:
    """Score by the groups of the first ten images of each participant's ranking."""
    rankings, group = rankings_of(study, answers), {each.id: each.group for each in study.stimuli}
    top = min(TOP, len(study.stimuli))
    values = [
        [sum(group[each] == name for each in order[:top]) / top for name in study.groups]
        for order in rankings.values()
    ]
    table = pd.DataFrame(values, index=list(rankings), columns=list(study.groups), dtype=float)
    return _plain(f"fraction of the top {top}", table, None)
