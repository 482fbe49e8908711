"""Simulated raters with known preferences."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, softmax

from stedfm_hf.runs.errors import UserError
from stedfm_hf.studies.answers import ATTENTION, TRIAL
from stedfm_hf.studies.plan import Trial, plan_trials, sides, start_sorter
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL, REAL_OR_GENERATED, Stimulus, Study

ATTENTIVE = 0.97
"""Probability of a right answer in an attention trial."""
MEDIAN_S, SIGMA = 3.0, 0.4
"""Median of the response times in seconds, and standard deviation of their logarithm."""


@dataclass(frozen=True)
class Raters:
    """Population of simulated raters.

    Attributes:
        rater_sd: Standard deviation of the preferences of raters around those of the study file, in log odds.
        image_sd: Standard deviation of the effects of images, in log odds.
        null: Whether raters have no preference and images do not differ: groups have the mean of their expectations,
            and if the main question is whether answers are better than chance, raters guess.
    """

    rater_sd: float = 0.5
    image_sd: float = 0.5
    null: bool = False


DEFAULT_RATERS = Raters()


@dataclass(frozen=True, eq=False)
class SimulatedStudy:
    """Simulated answers, and the preferences behind them.

    Attributes:
        rows: Answers, with the columns of the table of answers.
        planted: Preference by group; for `rank`, strength by image.
    """

    rows: list[dict[str, Any]]
    planted: dict[str, float]


def resized(study: Study, trials: int) -> Study:
    """Return the study with another number of stimuli, as if more like them existed.

    Args:
        study: The study.
        trials: Number of stimuli: every participant sees all of them, or ranks them.

    Example:
        >>> from stedfm_hf.studies.study import parse_study
        >>> cell = {"id": "cell", "options": {"A": "a.png", "B": "b.png"}}
        >>> study = parse_study({"title": "Maps", "type": "choose", "question": "?", "stimuli": [cell]})
        >>> [each.id for each in resized(study, 3).stimuli]
        ['cell', 'cell copy 1', 'cell copy 2']
    """
    if study.type == RANK and trials < 2:
        raise UserError("trials: a ranking needs at least two images")
    # Stimuli of the groups take turns, so that fewer stimuli are still of all groups.
    turns: dict[tuple[str, str | None], list[Stimulus]] = {}
    for each in study.stimuli:
        turns.setdefault((each.group, each.truth), []).append(each)
    order = [
        each
        for turn in range(max(map(len, turns.values())))
        for stimuli in turns.values()
        for each in stimuli[turn : turn + 1]
    ]
    copies = [
        order[number % len(order)]
        if number < len(order)
        else dataclasses.replace(
            order[number % len(order)], id=f"{order[number % len(order)].id} copy {number // len(order)}"
        )
        for number in range(trials)
    ]
    return dataclasses.replace(study, stimuli=tuple(copies), trials=None)


def simulate_answers(
    study: Study, participants: int, raters: Raters = DEFAULT_RATERS, *, seed: int = 0
) -> SimulatedStudy:
    """Simulate the answers of a study.

    Args:
        study: The study, with an expectation for each group.
        participants: Number of raters.
        raters: Population of the raters.
        seed: Random seed of the preferences and the answers.

    Returns:
        Simulated answers, none undone.

    Raises:
        UserError: If the study states no expectation.
    """
    if not study.expect and not raters.null:
        raise UserError("expect is missing in the study file: give the expected result of each group, or use --null")
    rng = np.random.default_rng([seed, participants, len(study.stimuli)])
    names = [f"simulated-{number + 1:03d}" for number in range(participants)]
    if study.type == RANK:
        return _rankings(study, names, raters, rng)
    preferences = _Preferences(study, raters, rng)
    rows = []
    for name in names:
        own = rng.normal(0.0, raters.rater_sd, len(study.groups))
        for order, trial in enumerate(plan_trials(study, name)):
            stimulus = study.by_id[trial.stimulus]
            if trial.kind == TRIAL:
                answer = preferences.answer(stimulus, trial.options, own, rng)
            else:
                answer = _attended(study, stimulus, trial.options, rng)
            rows.append(_row(study, name, order, trial, answer, rng))
    return SimulatedStudy(rows, preferences.planted)


class _Preferences:
    """Log odds of the groups, and effects of the stimuli.

    Args:
        study: The study.
        raters: Population of the raters.
        rng: Generator of the effects of the stimuli.
    """

    def __init__(self, study: Study, raters: Raters, rng: np.random.Generator) -> None:
        self.study = study
        chance = 1 / len(study.answers)
        expect = dict(study.expect) or dict.fromkeys(study.groups, chance)
        self.guess = raters.null and study.type == CLASSIFY and len(study.groups) == 1
        if raters.null:
            is_chance = self.guess or study.type == REAL_OR_GENERATED
            expect = dict.fromkeys(study.groups, chance if is_chance else sum(expect.values()) / len(expect))
        self.planted = expect
        values = np.array([expect[group] for group in study.groups])
        self.log_odds = np.log(values) if study.type == CHOOSE else logit(values)
        image_sd = 0.0 if raters.null else raters.image_sd
        self.of_stimulus = {each.id: rng.normal(0.0, image_sd, len(study.groups)) for each in study.stimuli}

    def answer(self, stimulus: Stimulus, options: tuple[str, ...], own: np.ndarray, rng: np.random.Generator) -> str:
        """Sample an answer to a trial."""
        log_odds = self.log_odds + own + self.of_stimulus[stimulus.id]
        if self.study.type == CHOOSE:
            return str(rng.choice(self.study.groups, p=softmax(log_odds)))
        truth = REAL if self.study.is_paired else stimulus.truth
        if truth is None or self.guess:
            return str(rng.choice(options))
        known = stimulus.group in self.study.groups
        right = expit(log_odds[self.study.groups.index(stimulus.group)] if known else log_odds.mean())
        return truth if rng.random() < right else str(rng.choice([each for each in options if each != truth]))


def _rankings(study: Study, names: list[str], raters: Raters, rng: np.random.Generator) -> SimulatedStudy:
    """Simulate comparisons by the Bradley-Terry model."""
    ids = [each.id for each in study.stimuli]
    strength = np.array([study.expect.get(each.group, 0.0) for each in study.stimuli])
    strength = np.zeros(len(ids)) if raters.null else strength + rng.normal(0.0, raters.image_sd, len(ids))
    rows = []
    for name in names:
        own = dict(
            zip(ids, strength + rng.normal(0.0, 0.0 if raters.null else raters.rater_sd, len(ids)), strict=True)
        )
        planned = plan_trials(study, name)
        for order, trial in enumerate(planned):
            answer = _attended(study, study.by_id[trial.stimulus], trial.options, rng)
            rows.append(_row(study, name, order, trial, answer, rng))
        sorter = start_sorter(study, name)
        while (pair := sorter.pair) is not None:
            first, second = sides(study, name, pair)
            answer = first if rng.random() < expit(own[first] - own[second]) else second
            order = len(planned) + len(sorter.answers)
            rows.append(_row(study, name, order, Trial(order, TRIAL, "", (first, second)), answer, rng))
            sorter.answer(answer)
    return SimulatedStudy(rows, dict(zip(ids, strength.tolist(), strict=True)))


def _attended(study: Study, stimulus: Stimulus, options: tuple[str, ...], rng: np.random.Generator) -> str:
    """Return the right answer of an attention trial in most cases, and any answer of a practice trial."""
    truth = stimulus.truth or (REAL if study.is_paired else None)
    return truth if truth is not None and rng.random() < ATTENTIVE else str(rng.choice(options))


def _row(
    study: Study, participant: str, order: int, trial: Trial, answer: str, rng: np.random.Generator
) -> dict[str, Any]:
    """Return an answer as a row of the table, with a random response time."""
    return {
        "participant": participant,
        "trial": trial.number,
        "order": order,
        "kind": trial.kind,
        "stimulus": trial.stimulus,
        "options": trial.options,
        "answer": answer,
        "response_s": round(float(MEDIAN_S * np.exp(rng.normal(0.0, SIGMA))), 3),
        "confidence": int(rng.integers(1, 6)) if study.confidence and trial.kind != ATTENTION else None,
        "undone": False,
        "answered_at": None,
    }
