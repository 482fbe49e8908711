from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedfm_hf.runs import UserError
from stedfm_hf.studies.answers import SCHEMA, check_answers, frame_of, read_answers, write_answers
from stedfm_hf.studies.exclusions import apply_exclusions
from stedfm_hf.studies.raters import simulate_answers
from stedfm_hf.studies.study import TYPES, Study
from tests.studies.examples import row, study

AB = ("A", "B")


@pytest.mark.parametrize("kind", TYPES)
def test_simulated_answers_fit_the_schema(tmp_path: Path, kind: str) -> None:
    of = study(kind, confidence=True)
    write_answers(tmp_path / "a.parquet", simulate_answers(of, 3).rows)
    assert pq.read_schema(tmp_path / "a.parquet").equals(SCHEMA)
    frame = read_answers(tmp_path / "a.parquet", of)
    assert frame["participant"].nunique() == 3 and isinstance(frame["options"].iloc[0], tuple)
    assert frame["confidence"].between(1, 5).all()
    (kept := apply_exclusions(frame, of)).participants["completed"].eq(1).all()
    assert len(kept.answers) == len(frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "C"}, "answer 'C' was not an option"),
        ({"stimulus": "c99"}, "stimulus c99 is not in the study file"),
        ({"kind": "test"}, "kind 'test' is unknown"),
        ({"options": ("A", "C")}, "are not of the study file"),
        ({"trial": 1}, "answered trial 1 twice"),
        ({"response_s": None}, "column response_s has empty cells"),
    ],
)
def test_answers_of_another_study_are_refused(change: dict[str, Any], message: str) -> None:
    rows = [row("p", 0, "c0", "A", AB) | change, row("p", 1, "c1", "B", AB)]
    with pytest.raises(UserError, match=message):
        check_answers(frame_of(rows), study())


def test_other_files_are_refused(tmp_path: Path) -> None:
    of, path = study(), tmp_path / "a.parquet"
    with pytest.raises(UserError, match="no such file"):
        read_answers(path, of)
    path.write_text("answers")
    with pytest.raises(UserError, match="is not a Parquet file"):
        read_answers(path, of)
    pq.write_table(pa.table({"participant": ["p"]}), path)
    with pytest.raises(UserError, match="has no column trial"):
        read_answers(path, of)
    write_answers(path, [])
    with pytest.raises(UserError, match="holds no answers"):
        read_answers(path, of)


def strict(**rules: float) -> Study:
    test = {"id": "easy", "options": {"A": "a", "B": "b"}, "truth": "A"}
    return study(attention=[test], exclude=rules)


def test_every_exclusion_is_counted() -> None:
    of = strict(min_response_s=0.5, max_response_s=60, max_fast=0.5, min_attention=1, min_completed=0.75)
    rows = []
    for name in ("good", "fast", "inattentive", "gone"):
        for number in range(4 if name != "gone" else 2):
            seconds = 0.1 if name == "fast" or (name, number) == ("good", 0) else 99.0 if number == 1 else 2.0
            rows.append(row(name, number, f"c{number}", "A", AB, response_s=seconds))
        rows.append(row(name, 9, "easy", "B" if name == "inattentive" else "A", AB, kind="attention"))
    # An answer that was taken back, and the one that replaced it.
    rows[3] |= {"order": 4}
    rows.append(row("good", 3, "c3", "B", AB, undone=True))
    kept = apply_exclusions(check_answers(frame_of(rows), of), of)
    assert kept.answers[["participant", "trial"]].to_numpy().tolist() == [["good", 2], ["good", 3]]
    assert kept.counts == {
        "undone by the participant": 1,
        "attention trial": 4,
        "participant excluded": 10,
        "too fast": 1,
        "too slow": 1,
    }
    reasons = kept.participants.set_index("participant")["excluded"]
    assert reasons["good"] == "" and kept.excluded == 3
    assert "faster than 0.5 s" in reasons["fast"] and "0 of 1 attention trials" in reasons["inattentive"]
    assert "completed 50% of the trials" in reasons["gone"]


def test_a_participant_who_saw_no_attention_trial_is_kept() -> None:
    of = strict(min_attention=0.5)
    kept = apply_exclusions(check_answers(frame_of([row("stopped", 0, "c0", "A", AB)]), of), of)
    assert kept.excluded == 0 and len(kept.answers) == 1


def test_nothing_left_is_an_error() -> None:
    of = strict(min_response_s=5)
    with pytest.raises(UserError, match="no answer is left .*too fast: 1"):
        apply_exclusions(check_answers(frame_of([row("p", 0, "c0", "A", AB)]), of), of)
