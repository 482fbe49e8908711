"""Study files: what is asked about which images, and which answers are excluded, stated before the study starts."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.wording import nearest, some_of

CHOOSE, CLASSIFY, REAL_OR_GENERATED, RANK = "choose", "classify", "real-or-generated", "rank"
TYPES = (CHOOSE, CLASSIFY, REAL_OR_GENERATED, RANK)
REAL, GENERATED = "real", "generated"
ALL = "all images"
"""Group of stimuli without groups."""


@dataclass(frozen=True)
class Stimulus:
    """Image, or set of images, about which one question is asked.

    Attributes:
        id: Name, unique in the study.
        image: File of the image, relative to the study file; None if only options are shown.
        options: Files of the images to choose from, by the group that each is from.
        group: Group whose answers are analysed together, such as the model that generated the image.
        truth: Right answer, where there is one.
    """

    id: str
    image: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    group: str = ALL
    truth: str | None = None


@dataclass(frozen=True)
class Exclusions:
    """Rules that exclude answers and participants; a rule that is None is not applied.

    Attributes:
        min_response_s: Answers that are faster are excluded, in seconds.
        max_response_s: Answers that are slower are excluded, in seconds.
        max_fast: Participants with a larger fraction of answers below `min_response_s` are excluded, in [0, 1].
        min_attention: Participants with a smaller fraction of right answers in attention trials are excluded, but not
            those who stopped before the first one; `min_completed` judges these.
        min_completed: Participants who answered a smaller fraction of their trials are excluded.
    """

    min_response_s: float | None = None
    max_response_s: float | None = None
    max_fast: float | None = None
    min_attention: float | None = None
    min_completed: float | None = None


@dataclass(frozen=True)
class Study:
    """Content of a study file.

    Attributes:
        title: Title for participants and reports.
        type: Task: `choose`, `classify`, `real-or-generated` or `rank`.
        question: Question above every trial.
        stimuli: Stimuli of the trials.
        seed: Random seed of the order and the positions of the images.
        classes: Answers of `classify`.
        trials: Number of stimuli that each participant sees, selected at random; None shows all.
        example: File of the image that the images of `rank` are compared with, or None.
        practice: Trials before the study, which are not analysed.
        attention: Trials with an obvious answer, mixed into the others.
        exclude: Rules that exclude answers and participants.
        expect: Expected result by group, for `stedfm study simulate`: probability to be chosen (`choose`), probability
            of a right answer (`classify`, `real-or-generated`), or mean strength in log odds (`rank`).
        confidence: Whether participants rate their confidence from 1 to 5.
        instructions: Text before the practice trials.
        consent: Text that participants agree to first.
    """

    title: str
    type: str
    question: str
    stimuli: tuple[Stimulus, ...]
    seed: int = 0
    classes: tuple[str, ...] = ()
    trials: int | None = None
    example: str | None = None
    practice: tuple[Stimulus, ...] = ()
    attention: tuple[Stimulus, ...] = ()
    exclude: Exclusions = Exclusions()
    expect: Mapping[str, float] = field(default_factory=dict)
    confidence: bool = False
    instructions: str = ""
    consent: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that are compared, in the order of the study file."""
        if self.type == CHOOSE:
            return tuple(self.stimuli[0].options)
        shown = [each.group for each in self.stimuli if not (self.type == REAL_OR_GENERATED and each.truth == REAL)]
        return tuple(dict.fromkeys(shown))

    @property
    def is_paired(self) -> bool:
        """Whether real and generated images are shown next to each other."""
        return self.type == REAL_OR_GENERATED and bool(self.stimuli[0].options)

    @property
    def answers(self) -> tuple[str, ...]:
        """Answers that a trial can have, except for `rank`, where they are ids of stimuli."""
        if self.type == CLASSIFY:
            return self.classes
        return (REAL, GENERATED) if self.type == REAL_OR_GENERATED else self.groups

    @property
    def by_id(self) -> dict[str, Stimulus]:
        """Stimuli, practice and attention trials by id."""
        return {each.id: each for each in (*self.stimuli, *self.practice, *self.attention)}


def all_images(study: Study) -> list[str]:
    """Return the paths of all images of a study, each once, in the order of the study file."""
    stimuli = (*study.stimuli, *study.practice, *study.attention)
    paths = [study.example, *(path for each in stimuli for path in (each.image, *each.options.values()))]
    return list(dict.fromkeys(path for path in paths if path is not None))


def changed_note(keys: Sequence[str]) -> str:
    """Return a sentence about the keys of a study file that differ from those of the study that was served.

    Example:
        >>> changed_note(["question", "exclude"])
        'question, exclude: changed in the study file since the study was served; say so with the results'
    """
    return f"{', '.join(keys)}: changed in the study file since the study was served; say so with the results"


def read_study(path: str | os.PathLike[str]) -> Study:
    """Read and check a study file.

    Args:
        path: YAML file.

    Returns:
        The study.

    Raises:
        UserError: If the file cannot be read, a key is unknown, missing, repeated or of a wrong type, or values
            contradict each other. The message names the key.
    """
    from stedfm_hf.runs.yaml_text import load_yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a study file") from error
    except ValueError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error}); give a study file") from error
    try:
        return parse_study(load_yaml(text))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse_study(values: Any) -> Study:
    """Make a study from plain data; see `read_study`.

    Args:
        values: Content of a study file.

    Raises:
        UserError: As for `read_study`, without the name of the file.

    Example:
        >>> cell = {"id": "cell", "options": {"A": "a.png", "B": "b.png"}}
        >>> parse_study({"title": "Maps", "type": "choose", "question": "Which?", "stimuli": [cell]}).groups
        ('A', 'B')
    """
    given = _mapping(values, "the file", Study)
    for name in ("title", "type", "question", "stimuli"):
        if name not in given:
            raise UserError(f"{name} is missing")
    for name in ("title", "question", "instructions", "consent", "example"):
        if name in given:
            given[name] = _text(given[name], name)
    if given["type"] not in TYPES:
        near = nearest(str(given["type"]), TYPES)
        raise UserError(f"type {given['type']!r} is unknown{near or '; it must be one of: ' + ', '.join(TYPES)}")
    for name in ("stimuli", "practice", "attention"):
        if name in given:
            given[name] = _stimuli(given[name], name)
    if "classes" in given:
        given["classes"] = tuple(_text(each, "classes") for each in _list(given["classes"], "classes"))
    if "exclude" in given:
        given["exclude"] = _exclusions(given["exclude"])
    if "expect" in given:
        given["expect"] = {
            _text(name, "expect"): _number(value, f"expect of {name}")
            for name, value in _mapping(given["expect"], "expect").items()
        }
    for name, least in (("seed", 0), ("trials", 1)):
        if name in given and not (type(given[name]) is int and given[name] >= least):
            raise UserError(f"{name} is {given[name]!r}; it must be a whole number, {least} or more")
    if not isinstance(given.get("confidence", False), bool):
        raise UserError(f"confidence is {given['confidence']!r}; it must be true or false")
    study = Study(**given)
    _check(study)
    return study


def _check(study: Study) -> None:
    """Refuse values that contradict each other."""
    if not study.stimuli:
        raise UserError("stimuli is empty; list at least one")
    ids = [each.id for each in (*study.stimuli, *study.practice, *study.attention)]
    if twice := next((each for number, each in enumerate(ids) if each in ids[:number]), None):
        raise UserError(f"stimuli: the id {twice} is used twice; give every stimulus its own id")
    if study.type == CLASSIFY and (len(set(study.classes)) < 2 or len(set(study.classes)) < len(study.classes)):
        raise UserError("classes must name at least two different answers for classify")
    if study.classes and study.type != CLASSIFY:
        raise UserError(f"classes belong to classify, not to {study.type}; remove them")
    if study.example is not None and study.type != RANK:
        raise UserError(f"example belongs to rank, not to {study.type}; give each stimulus an image instead")
    if study.type == RANK and len(study.stimuli) < 2:
        raise UserError("stimuli: rank compares images; list at least two")
    if study.type == RANK and study.trials is not None:
        raise UserError("trials: rank asks as many comparisons as the sorting needs; remove trials")
    if study.trials is not None and study.trials > len(study.stimuli):
        raise UserError(
            f"trials is {study.trials}, but there are {len(study.stimuli)} stimuli; lower it or add stimuli"
        )
    if study.type == CHOOSE:
        _check_same_options(study)
    for each in (*study.stimuli, *study.practice, *study.attention):
        _check_stimulus(study, each, attention=each in study.attention)
    if study.type == REAL_OR_GENERATED and not study.is_paired and len({each.truth for each in study.stimuli}) < 2:
        raise UserError("stimuli: add images of both truths, real and generated")
    if study.exclude.max_fast is not None and study.exclude.min_response_s is None:
        raise UserError("exclude: max_fast needs min_response_s, which says what is fast; add it")
    if study.exclude.min_attention is not None and not study.attention:
        raise UserError("exclude: min_attention needs attention trials; list them under attention")
    if study.expect:
        _check_expectation(study)


def _check_same_options(study: Study) -> None:
    """Refuse stimuli with options of different groups, and name the one that differs from most of the others."""
    usual, _ = Counter(frozenset(each.options) for each in study.stimuli).most_common(1)[0]
    model = next(each for each in study.stimuli if set(each.options) == usual)
    for each in study.stimuli:
        if set(each.options) != usual:
            raise UserError(
                f"stimulus {each.id}: options are {', '.join(each.options) or 'missing'}, but those of {model.id} are "
                f"{', '.join(model.options) or 'missing'}; give an image of each group"
            )


def _check_stimulus(study: Study, each: Stimulus, *, attention: bool) -> None:
    """Refuse a stimulus that does not suit the task."""
    answers: Sequence[str]
    if study.type == CHOOSE:
        answers = study.groups
        if len(each.options) < 2 or set(each.options) != set(answers):
            raise UserError(f"stimulus {each.id}: options must be an image of each group: {', '.join(answers)}")
    elif study.type == CLASSIFY:
        answers = study.classes
        _need_image(each)
    elif study.type == REAL_OR_GENERATED:
        answers = (REAL, GENERATED)
        if study.is_paired and set(each.options) != set(answers):
            raise UserError(f"stimulus {each.id}: options must be an image `real` and an image `generated`")
        if not study.is_paired:
            _need_image(each)
        if not study.is_paired and each.truth not in answers:
            raise UserError(f"stimulus {each.id}: truth must be real or generated")
    elif each in study.stimuli:
        answers = (each.id,)
        _need_image(each)
    else:
        answers = tuple(each.options)
        if len(answers) != 2:
            raise UserError(f"stimulus {each.id}: options must be two images to compare")
    if each.truth is not None and each.truth not in answers:
        near = nearest(each.truth, answers) or f"; choose {', '.join(answers)}"
        raise UserError(f"stimulus {each.id}: truth {each.truth!r} is not an answer{near}")
    if attention and each.truth is None and not study.is_paired:
        raise UserError(f"attention trial {each.id}: truth is missing; give the obvious answer")


def _need_image(each: Stimulus) -> None:
    if each.image is None or each.options:
        raise UserError(f"stimulus {each.id}: must have one image and no options")


def _check_expectation(study: Study) -> None:
    """Refuse expectations of other groups, and numbers that are not probabilities."""
    groups = ", ".join(study.groups)
    if missing := [each for each in study.groups if each not in study.expect]:
        raise UserError(f"expect: {some_of(missing)} is missing; give one number for each group: {groups}")
    if foreign := [each for each in study.expect if each not in study.groups]:
        raise UserError(f"expect: {some_of(foreign)} is not a group that is compared; these are: {groups}")
    for name, value in study.expect.items():
        if study.type != RANK and not 0 < value < 1:
            raise UserError(
                f"expect: {name} is {value:g}; a probability must lie between 0 and 1, such as 0.8 for 80 %"
            )
    if study.type == CHOOSE and abs(sum(study.expect.values()) - 1) > 0.01:
        raise UserError(f"expect: the probabilities sum to {sum(study.expect.values()):g}; they must sum to 1")


def _stimuli(values: Any, name: str) -> tuple[Stimulus, ...]:
    """Make stimuli from a list of mappings."""
    found = []
    for number, each in enumerate(_list(values, name), 1):
        given = _mapping(each, f"{name} {number}", Stimulus)
        if "id" not in given:
            raise UserError(f"{name} {number}: id is missing")
        if "options" in given:
            options = _mapping(given["options"], f"options of {given['id']}")
            given["options"] = {_text(key, "options"): _text(value, "options") for key, value in options.items()}
        texts = {key: _text(value, f"{name} {number}: {key}") for key, value in given.items() if key != "options"}
        found.append(Stimulus(**(given | texts)))
    return tuple(found)


def _exclusions(values: Any) -> Exclusions:
    """Make the exclusion rules: times in seconds, fractions in [0, 1]."""
    given = {
        name: _number(value, f"exclude: {name}") for name, value in _mapping(values, "exclude", Exclusions).items()
    }
    for name, value in given.items():
        if value < 0 or (not name.endswith("_s") and value > 1):
            allowed = "0 or more" if name.endswith("_s") else "0 to 1"
            raise UserError(f"exclude: {name} is {value:g}; it must be {allowed}")
    return Exclusions(**given)


def _mapping(values: Any, place: str, kind: type | None = None) -> dict[str, Any]:
    """Return a copy of a mapping whose keys are fields of a class; values that are null count as missing."""
    if not isinstance(values, dict):
        raise UserError(f"{place} must hold lines like `key: value`")
    known: Collection[str] = () if kind is None else [each.name for each in dataclasses.fields(kind)]
    for key in values:
        if kind is not None and key not in known:
            raise UserError(f"{place}: {key} is unknown{nearest(str(key), known) or '; choose ' + ', '.join(known)}")
    return {key: value for key, value in values.items() if value is not None}


def _list(values: Any, place: str) -> list[Any]:
    if not isinstance(values, list):
        raise UserError(f"{place} must be a list")
    return values


def _text(value: Any, place: str) -> str:
    if isinstance(value, bool | list | dict) or not str(value).strip():
        raise UserError(f"{place} is {value!r}; it must be a text (in quotes, if YAML reads it as something else)")
    return str(value)


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise UserError(f"{place} is {value!r}; it must be a number")
    return float(value)
