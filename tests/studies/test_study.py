from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stedfm_hf.runs import UserError
from stedfm_hf.studies.study import CLASSIFY, RANK, REAL_OR_GENERATED, TYPES, parse_study, read_study
from tests.studies.examples import single_images, study, values


@pytest.mark.parametrize("kind", TYPES)
def test_a_study_file_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values(kind)))
    found = read_study(path)
    assert found == parse_study(values(kind)) and found.groups == ("A", "B")


def test_single_images_compare_the_generators() -> None:
    found = single_images()
    assert found.groups == ("A", "B") and not found.is_paired and found.answers == ("real", "generated")


WRONG: list[tuple[dict[str, Any], str]] = [
    (values(type="chose"), "type 'chose' is unknown; did you mean choose?"),
    (values(type="real_or_fake"), "type 'real_or_fake' is unknown; it must be one of: choose, classify"),
    (values(trails=3), "the file: trails is unknown; did you mean trials?"),
    (values(stimuli=[]), "stimuli is empty"),
    (values(trials=9), "trials is 9, but there are 4 stimuli"),
    (values(trials=True), "trials is True; it must be a whole number"),
    (values(seed=-1), "seed is -1"),
    (values(stimuli=[{"id": "a"}]), "stimulus a: options must be an image of each group"),
    (values(stimuli=[{"options": {"A": "a", "B": "b"}}]), "stimuli 1: id is missing"),
    (values(stimuli=[{"id": "a", "options": {"A": "a", "B": "b"}}] * 2), "the id a is used twice"),
    (
        values(stimuli=[{"id": name, "options": {"A": "a", name[0]: "b"}} for name in ("C1", "B1", "B2")]),
        "stimulus C1: options are A, C, but those of B1 are A, B;",
    ),
    (values(classes=["x"]), "classes belong to classify"),
    (values(exclude={"min_atention": 1}), "did you mean min_attention?"),
    (values(exclude={"min_attention": 0.5}), "min_attention needs attention trials"),
    (values(exclude={"max_fast": 0.5}), "max_fast needs min_response_s"),
    (values(exclude={"min_completed": 80}), "min_completed is 80; it must be 0 to 1"),
    (values(expect={"A": 1}), "expect: B is missing; give one number for each group: A, B"),
    (values(expect={"A": 0.5, "B": 0.3, "C": 0.2}), "expect: C is not a group that is compared; these are: A, B"),
    (values(expect={"A": 0.5, "B": 80}), "expect: B is 80; a probability must lie between 0 and 1"),
    (values(expect={"A": 0.5, "B": 0.2}), "the probabilities sum to 0.7"),
    (values(confidence="yes"), "confidence is 'yes'; it must be true or false"),
    (values(title=[1]), "title is [1]; it must be a text"),
    (values(attention=[{"id": "t", "options": {"A": "a", "B": "b"}}]), "attention trial t: truth is missing"),
    (values(CLASSIFY, classes=["x"]), "classes must name at least two"),
    (values(CLASSIFY, stimuli=[{"id": "a", "image": "a", "truth": "X"}]), "truth 'X' is not an answer"),
    (values(REAL_OR_GENERATED, stimuli=[{"id": "a", "image": "a"}]), "truth must be real or generated"),
    (values(RANK, stimuli=[{"id": "a", "image": "a"}]), "list at least two"),
    (values(RANK, trials=2), "rank asks as many comparisons as the sorting needs"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_study_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as told:
        parse_study(given)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: a\nstimuli: []\ntitle: b\n", "line 3: the key title appears twice (first on line 1); merge them"),
        (
            "stimuli:\n  - id: a\n    options: {STED: a, STED: b}",
            "line 3: the key STED appears twice (first on line 3)",
        ),
    ],
)
def test_a_repeated_key_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as told:
        read_study(path)
    assert str(told.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("text", ["a: [", "- a", "!!python/object:os.system {}", "\x00"])
def test_a_file_that_is_not_a_study_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"study.yaml"):
        read_study(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_study(tmp_path / "no.yaml")


def test_confidence_is_off_unless_it_is_asked_for() -> None:
    assert not study().confidence and study(confidence=True).confidence
