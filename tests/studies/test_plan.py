from __future__ import annotations

import dataclasses

import pytest

from stedfm_hf.studies.answers import ATTENTION, PRACTICE, TRIAL
from stedfm_hf.studies.plan import Trial, next_trial, plan_trials, sides
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, TYPES, Study
from tests.studies.examples import study


def full(kind: str, number: int = 8) -> Study:
    """A study with practice and attention trials."""
    pair = {"options": {"A": "a", "B": "b"}, "truth": "A"}
    if kind == CLASSIFY:
        pair = {"image": "a", "truth": "x"}
    elif kind not in (CHOOSE, RANK):
        pair = {"options": {"real": "a", "generated": "b"}, "truth": "real"}
    extra = {name: [pair | {"id": f"{name}{i}"} for i in range(2)] for name in ("practice", "attention")}
    return study(kind, number, **extra)


def walk(of: Study, participant: str) -> list[Trial]:
    """All trials of a participant who prefers the first name."""
    trials: list[Trial] = []
    answers: list[str] = []
    while (trial := next_trial(of, participant, answers)) is not None:
        assert trial == next_trial(of, participant, answers)  # a reload shows the same
        trials.append(trial)
        answers.append(min(trial.options))
    return trials


@pytest.mark.parametrize("kind", TYPES)
def test_every_trial_comes_once_and_practice_first(kind: str) -> None:
    of = full(kind)
    trials = walk(of, "p")
    kinds = [each.kind for each in trials]
    assert kinds[:2] == [PRACTICE] * 2 and PRACTICE not in kinds[2:] and kinds.count(ATTENTION) == 2
    assert [each.number for each in trials] == list(range(len(trials)))
    assert kinds[-1] == TRIAL or kind != RANK  # the rhythm ends before the sorting does
    if kind != RANK:
        assert trials == list(plan_trials(of, "p"))
        assert sorted(each.stimulus for each in trials if each.kind == TRIAL) == sorted(s.id for s in of.stimuli)


@pytest.mark.parametrize("kind", TYPES)
def test_order_differs_between_participants_and_seeds(kind: str) -> None:
    of = full(kind)
    assert walk(of, "p") != walk(of, "q") and walk(of, "p") != walk(dataclasses.replace(of, seed=1), "p")


def test_positions_are_balanced_and_buttons_keep_their_order() -> None:
    of = study(CHOOSE, 200)
    left = sum(each.options[0] == "A" for each in plan_trials(of, "p"))
    assert 70 < left < 130
    assert {each.options for each in plan_trials(study(CLASSIFY), "p")} == {("x", "y", "z")}
    ranked = study(RANK)
    left = sum(sides(ranked, f"p{number}", ("b", "a")) == ("a", "b") for number in range(200))
    assert 70 < left < 130 and sides(ranked, "p", ("a", "b")) == sides(ranked, "p", ("b", "a"))


def test_a_participant_sees_some_stimuli() -> None:
    of = study(CHOOSE, 9, trials=4)
    assert [len(plan_trials(of, name)) for name in "pq"] == [4, 4]
