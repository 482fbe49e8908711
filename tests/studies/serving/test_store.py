from __future__ import annotations

import dataclasses
import sqlite3
import threading
from pathlib import Path

import pytest

from stedfm_hf.runs import UserError
from stedfm_hf.studies.plan import Trial
from stedfm_hf.studies.serving.store import Store, create_store
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED
from tests.studies.serving.served import served_study

TRIAL = Trial(0, "trial", "c0", ("A", "B"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "answers.sqlite", served_study(CHOOSE), {"a.png": "1"})


def person(store: Store) -> str:
    with store.writing() as transaction:
        token = transaction.invite(1)[0]
    found = store.participant(token)
    assert found is not None
    return found


def test_an_answer_is_stored_once_and_never_changed(store: Store) -> None:
    who = person(store)
    with store.writing() as transaction:
        transaction.add_answer(who, TRIAL, 0, "A", 1.5, None)
    with pytest.raises(sqlite3.IntegrityError), store.writing() as transaction:
        transaction.add_answer(who, TRIAL, 0, "B", 1.5, None)
    with pytest.raises(sqlite3.IntegrityError), store.writing() as transaction:
        transaction.add_answer("somebody else", TRIAL, 0, "B", 1.5, None)
    for change in ("DELETE FROM answers", "UPDATE answers SET answer = 'B'"):
        with sqlite3.connect(store.path) as connection, pytest.raises(sqlite3.IntegrityError, match="only added"):
            connection.execute(change)
        connection.close()
    with store.reading() as transaction:
        (stored,) = transaction.history(who)
        assert transaction.history("somebody else") == []
    assert (stored.answer, stored.options, stored.response_s, stored.undone) == ("A", ("A", "B"), 1.5, False)


def test_an_undo_is_a_row_and_an_error_takes_all_back(store: Store) -> None:
    who = person(store)
    with store.writing() as transaction:
        transaction.add_answer(who, TRIAL, 0, "A", 1.0, 3)
        transaction.add_undo(transaction.history(who)[0])
        transaction.add_answer(who, TRIAL, 1, "B", 1.0, 4)
    with pytest.raises(RuntimeError), store.writing() as transaction:
        transaction.add_answer(who, TRIAL, 2, "A", 1.0, None)
        raise RuntimeError
    with store.reading() as transaction:
        found = [(each.answer, each.attempt, each.undone, each.confidence) for each in transaction.history(who)]
    assert found == [("A", 0, True, 3), ("B", 1, False, 4)]


def test_no_link_can_be_found_in_the_file(store: Store) -> None:
    with store.writing() as transaction:
        tokens = transaction.invite(3)
    assert len(set(tokens)) == 3 and all(len(each) == 32 for each in tokens)
    assert len({store.participant(each) for each in tokens}) == 3 and store.participant("x\udcff") is None
    content = b"".join(each.read_bytes() for each in store.path.parent.iterdir())
    assert not [each for each in tokens if each.encode() in content]


def test_threads_do_not_lose_answers(store: Store) -> None:
    people = [person(store) for _ in range(4)]

    def answer(who: str) -> None:
        for number in range(10):
            with store.writing() as transaction:
                assert len(transaction.history(who)) == number
                transaction.add_answer(who, dataclasses.replace(TRIAL, number=number), 0, "A", 1.0, None)

    threads = [threading.Thread(target=answer, args=(who,)) for who in people]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with store.reading() as transaction:
        assert len(transaction.history()) == 40


@pytest.mark.parametrize("kind", [CHOOSE, CLASSIFY, REAL_OR_GENERATED, RANK])
def test_the_study_is_restored(tmp_path: Path, kind: str) -> None:
    of = served_study(kind, exclude={"min_response_s": 0.5})
    assert create_store(tmp_path / "new" / "answers.sqlite", of, {}).study() == of


def test_another_version_of_the_study_is_refused_once_there_are_answers(store: Store) -> None:
    changed = dataclasses.replace(served_study(CHOOSE), question="Other?")
    secret = store.facts()["secret"]
    assert create_store(store.path, changed, {}).study().question == "Other?"
    assert create_store(store.path, served_study(CHOOSE), {"a.png": "1"}).facts()["secret"] == secret
    who = person(store)
    with store.writing() as transaction:
        transaction.add_answer(who, TRIAL, 0, "A", 1.0, None)
    with pytest.raises(UserError, match=r"another version of the study \(question changed\)"):
        create_store(store.path, changed, {"a.png": "1"})
    with pytest.raises(UserError, match=r"a.png changed"):
        create_store(store.path, served_study(CHOOSE), {"a.png": "2"})
    create_store(store.path, served_study(CHOOSE), {"a.png": "1"})


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Store(tmp_path / "missing.sqlite")
    (tmp_path / "text.sqlite").write_text("thesis" * 1000)
    with pytest.raises(UserError, match="is not a file of answers"):
        create_store(tmp_path / "text.sqlite", served_study(CHOOSE), {})
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE thesis (text)")
    connection.close()
    with pytest.raises(UserError, match="is not a file of answers"):
        create_store(tmp_path / "other.sqlite", served_study(CHOOSE), {})
    with pytest.raises(UserError, match="cannot be written"):
        create_store(tmp_path / "text.sqlite" / "answers.sqlite", served_study(CHOOSE), {})
