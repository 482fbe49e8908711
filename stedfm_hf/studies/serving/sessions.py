"""Progress of a participant: which trial is next, and how an answer or an undo changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stedfm_hf.studies.answers import PRACTICE, TRIAL
from stedfm_hf.studies.plan import Trial, next_trial
from stedfm_hf.studies.serving.store import Answer, Store, kept
from stedfm_hf.studies.sorter import most_comparisons
from stedfm_hf.studies.study import RANK, REAL, Study


@dataclass(frozen=True)
class Progress:
    """State of a participant.

    Attributes:
        trial: Next trial, or None at the end.
        attempt: Number of answers to this trial that were undone.
        done: Number of answers in the present part: practice, or the study itself.
        total: Number of trials in this part; for `rank` the largest that may be needed.
        last: Answer that can be undone, or None.
    """

    trial: Trial | None
    attempt: int
    done: int
    total: int
    last: Answer | None


def progress_of(study: Study, participant: str, history: Sequence[Answer]) -> Progress:
    """Return the state of a participant.

    Answers to practice trials cannot be undone, because the right answer has been shown.

    Args:
        study: The study.
        participant: Id of the participant.
        history: All answers of the participant, in order.
    """
    trial = next_trial(study, participant, kept(history))
    given = [each for each in history if not each.undone]
    attempt = 0 if trial is None else sum(each.undone and each.trial == trial.number for each in history)
    last = given[-1] if given and given[-1].kind != PRACTICE else None
    practised = sum(each.kind == PRACTICE for each in given)
    if trial is not None and trial.kind == PRACTICE:
        return Progress(trial, attempt, practised, len(study.practice), last)
    asked = most_comparisons(len(study.stimuli)) if study.type == RANK else study.trials or len(study.stimuli)
    return Progress(trial, attempt, len(given) - practised, asked + len(study.attention), last)


def record(
    study: Study,
    store: Store,
    participant: str,
    *,
    trial: int,
    attempt: int,
    position: int,
    response_s: float,
    confidence: int | None,
) -> Trial | None:
    """Store an answer, if the trial is the next one; an answer to another trial changes nothing.

    Args:
        study: The study.
        store: File of answers.
        participant: Id of the participant.
        trial: Number of the trial that was shown.
        attempt: Number of undone answers to this trial when it was shown.
        position: Index of the chosen option.
        response_s: Time from display to answer, in seconds.
        confidence: 1 to 5, or None.

    Returns:
        The trial that was answered, or None if nothing was stored.

    Raises:
        IndexError: If the trial has no such option.
    """
    with store.writing() as transaction:
        now = progress_of(study, participant, transaction.history(participant))
        if now.trial is None or (now.trial.number, now.attempt) != (trial, attempt):
            return None
        answer = now.trial.options[position]
        transaction.add_answer(participant, now.trial, attempt, answer, response_s, confidence)
        return now.trial


def undo(study: Study, store: Store, participant: str, *, trial: int, attempt: int) -> None:
    """Take the last answer back, if it is the named one.

    Args:
        study: The study.
        store: File of answers.
        participant: Id of the participant.
        trial: Number of its trial.
        attempt: Its attempt.
    """
    with store.writing() as transaction:
        last = progress_of(study, participant, transaction.history(participant)).last
        if last is not None and (last.trial, last.attempt) == (trial, attempt):
            transaction.add_undo(last)


def right_answer(study: Study, stimulus: str) -> str | None:
    """Return the right answer to a stimulus, where there is one."""
    return study.by_id[stimulus].truth or (REAL if study.is_paired else None)


def images_of(study: Study, trial: Trial) -> tuple[str | None, tuple[str | None, ...]]:
    """Return the images of a trial as paths in the study file.

    Args:
        study: The study.
        trial: The trial.

    Returns:
        The image above or next to the options, or None, and the image of each option; None for options in words.
    """
    if study.type == RANK and trial.kind == TRIAL:
        return study.example, tuple(study.by_id[each].image for each in trial.options)
    stimulus = study.by_id[trial.stimulus]
    image = stimulus.image if stimulus.image is not None or study.type != RANK else study.example
    return image, tuple(stimulus.options.get(each) for each in trial.options)
