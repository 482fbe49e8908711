"""What a participant sees next: a function of the study, the participant and the answers so far.

Nothing is kept between requests, so that a reload, a second tab or a restart of the server shows the same trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

import numpy as np

from stedfm_hf.studies.answers import ATTENTION, PRACTICE, TRIAL
from stedfm_hf.studies.sorter import PairwiseSorter, most_comparisons
from stedfm_hf.studies.study import CLASSIFY, RANK, REAL_OR_GENERATED, Stimulus, Study

T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """Trial of a participant.

    Attributes:
        number: Number in the participant's plan, from 0.
        kind: `trial`, `practice` or `attention`.
        stimulus: Id of the stimulus; "" for a comparison of `rank`.
        options: Possible answers, from left to right.
    """

    number: int
    kind: str
    stimulus: str
    options: tuple[str, ...]


def plan_trials(study: Study, participant: str) -> tuple[Trial, ...]:
    """Return all trials of a participant, in order; for `rank`, those that are not comparisons.

    Practice trials come first. The order of the others, the positions of attention trials and the positions of the
    images are random, and the same for the same seed and participant.

    Args:
        study: The study.
        participant: Token of the participant.
    """
    rng = _generator(study, participant, "trials")
    shown = [] if study.type == RANK else [study.stimuli[number] for number in _selected(study, rng)]
    trials = [(TRIAL, each) for each in shown]
    # Attention trials stand between the others: one in each part of equal length, at a random position.
    for number, each in reversed(list(enumerate(_shuffled(study.attention, rng)))):
        low, high = (len(shown) * part // len(study.attention) for part in (number, number + 1))
        trials.insert(int(rng.integers(low, high + 1)), (ATTENTION, each))
    return tuple(
        Trial(number, kind, each.id, _options(study, each, rng))
        for number, (kind, each) in enumerate([*((PRACTICE, each) for each in study.practice), *trials])
    )


def next_trial(study: Study, participant: str, answers: Sequence[str]) -> Trial | None:
    """Return the next trial of a participant, or None at the end.

    Args:
        study: The study.
        participant: Token of the participant.
        answers: Answers so far, in order, without those that were undone.
    """
    planned = plan_trials(study, participant)
    if study.type != RANK:
        return planned[len(answers)] if len(answers) < len(planned) else None
    practice, attention = planned[: len(study.practice)], planned[len(study.practice) :]
    if len(answers) < len(practice):
        return practice[len(answers)]
    every = most_comparisons(len(study.stimuli)) // (2 * len(attention) + 1) if attention else 0
    sorter, asked = start_sorter(study, participant), 0
    number = len(practice)
    while True:
        due = asked < len(attention) and (sorter.pair is None or len(sorter.answers) >= max(every, 1) * (asked + 1))
        if sorter.pair is None and not due:
            return None
        if number == len(answers):
            if due:
                return Trial(number, ATTENTION, attention[asked].stimulus, attention[asked].options)
            assert sorter.pair is not None
            return Trial(number, TRIAL, "", sides(study, participant, sorter.pair))
        if due:
            asked += 1
        else:
            sorter.answer(answers[number])
        number += 1


def start_sorter(study: Study, participant: str) -> PairwiseSorter:
    """Return the sorter of a participant of `rank`, before the first comparison."""
    return PairwiseSorter([each.id for each in _shuffled(study.stimuli, _generator(study, participant, "order"))])


def sides(study: Study, participant: str, pair: tuple[str, str]) -> tuple[str, str]:
    """Return the two images of a comparison from left to right, at random but the same in every call."""
    first, second = sorted(pair)
    bit = _digest(str(study.seed), participant, first, second)[0] & 1
    return (first, second) if bit else (second, first)


def _options(study: Study, stimulus: Stimulus, rng: np.random.Generator) -> tuple[str, ...]:
    """Return the possible answers: images in a random order, buttons in that of the study file."""
    if study.type == CLASSIFY or (study.type == REAL_OR_GENERATED and not study.is_paired):
        return study.answers
    return tuple(_shuffled(tuple(stimulus.options), rng))


def _selected(study: Study, rng: np.random.Generator) -> list[int]:
    """Return the numbers of the stimuli that a participant sees, in random order."""
    return rng.permutation(len(study.stimuli))[: study.trials].tolist()


def _shuffled(values: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [values[number] for number in rng.permutation(len(values))]


def _generator(study: Study, participant: str, *purpose: str) -> np.random.Generator:
    return np.random.default_rng([study.seed, int.from_bytes(_digest(participant, *purpose), "big")])


def _digest(*words: str) -> bytes:
    return sha256("\0".join(words).encode()).digest()
