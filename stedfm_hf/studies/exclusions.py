"""Exclusion of answers and participants by the rules of the study file, with a report of what was excluded and why."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from stedfm_hf.runs.errors import UserError
from stedfm_hf.studies.answers import ATTENTION, PRACTICE, TRIAL
from stedfm_hf.studies.plan import start_sorter
from stedfm_hf.studies.sorter import PairwiseSorter
from stedfm_hf.studies.study import RANK, REAL, Study


@dataclass(frozen=True, eq=False)
class Kept:
    """Answers that are analysed, and what was excluded.

    Attributes:
        answers: Answers to analyse, with the columns of the table of answers.
        participants: One row per participant: `participant`, `answers`, `analysed`, `completed`, `attention`, `fast`
            (fractions, NaN where undefined), and `excluded` (reason, or "").
        counts: Number of answers that were not analysed, by reason.
    """

    answers: pd.DataFrame
    participants: pd.DataFrame
    counts: dict[str, int]

    @property
    def excluded(self) -> int:
        """Number of excluded participants."""
        return int((self.participants["excluded"] != "").sum())


def apply_exclusions(frame: pd.DataFrame, study: Study) -> Kept:
    """Exclude answers by the rules of the study.

    Undone answers and practice trials are never analysed. Participants are judged by all their other answers, then the
    answers of the others are excluded by response time.

    Args:
        frame: Answers of `read_answers`.
        study: The study.

    Returns:
        The kept answers.

    Raises:
        UserError: If no answer is left.
    """
    rules, trials = study.exclude, frame[~frame["undone"] & (frame["kind"] == TRIAL)]
    counts = {
        "undone by the participant": int(frame["undone"].sum()),
        "practice trial": int((~frame["undone"] & (frame["kind"] == PRACTICE)).sum()),
        "attention trial": int((~frame["undone"] & (frame["kind"] == ATTENTION)).sum()),
    }
    records = [_judge(study, str(name), rows) for name, rows in frame[~frame["undone"]].groupby("participant")]
    if not records:
        raise UserError("all answers were undone; there is nothing to analyse")
    participants = pd.DataFrame(records)
    bad = participants.loc[participants["excluded"] != "", "participant"]
    of_excluded = trials["participant"].isin(bad)
    fast = trials["response_s"] < (0 if rules.min_response_s is None else rules.min_response_s)
    slow = trials["response_s"] > (float("inf") if rules.max_response_s is None else rules.max_response_s)
    counts["participant excluded"] = int(of_excluded.sum())
    counts["too fast"] = int((fast & ~of_excluded).sum())
    counts["too slow"] = int((slow & ~of_excluded & ~fast).sum())
    kept = trials[~(of_excluded | fast | slow)].reset_index(drop=True)
    if kept.empty:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in counts.items() if number)
        raise UserError(f"no answer is left after the exclusions ({reasons})")
    participants["analysed"] = (
        participants["participant"].map(kept.groupby("participant").size()).fillna(0).astype(int)
    )
    return Kept(kept, participants, {reason: number for reason, number in counts.items() if number})


def _judge(study: Study, participant: str, rows: pd.DataFrame) -> dict[str, object]:
    """Return the row of a participant, with the first rule that excludes the participant."""
    rules, trials, tests = study.exclude, rows[rows["kind"] == TRIAL], rows[rows["kind"] == ATTENTION]
    right = [
        answer == (study.by_id[name].truth or REAL)
        for name, answer in zip(tests["stimulus"], tests["answer"], strict=True)
    ]
    attention = sum(right) / len(right) if right else float("nan")
    fast = float("nan")
    if rules.min_response_s is not None and len(trials):
        fast = float((trials["response_s"] < rules.min_response_s).mean())
    completed = _completed(study, participant, trials)
    excluded = ""
    if rules.min_completed is not None and completed < rules.min_completed:
        excluded = f"completed {completed:.0%} of the trials, fewer than {rules.min_completed:.0%}"
    elif rules.min_attention is not None and attention < rules.min_attention:  # never true without attention trials
        excluded = f"{sum(right)} of {len(right)} attention trials right, fewer than {rules.min_attention:.0%}"
    elif rules.max_fast is not None and fast > rules.max_fast:
        excluded = f"{fast:.0%} of the answers faster than {rules.min_response_s:g} s"
    return {
        "participant": participant,
        "answers": len(trials),
        "completed": completed,
        "attention": attention,
        "fast": fast,
        "excluded": excluded,
    }


def _completed(study: Study, participant: str, trials: pd.DataFrame) -> float:
    """Return the fraction of the trials that are answered; for `rank`, how far the sorting is."""
    if study.type != RANK:
        return len(trials) / (study.trials or len(study.stimuli))
    sorter = start_sorter(study, participant)
    replay(sorter, trials)
    return sorter.progress


def replay(sorter: PairwiseSorter, trials: pd.DataFrame) -> None:
    """Repeat the comparisons of a participant in a sorter, until one is missing.

    Args:
        sorter: Sorter to advance.
        trials: Comparisons of the participant: `options` and `answer`.
    """
    winners = {frozenset(options): answer for options, answer in zip(trials["options"], trials["answer"], strict=True)}
    while sorter.pair is not None and (winner := winners.get(frozenset(sorter.pair))) is not None:
        sorter.answer(winner)
