from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from stedfm_hf.studies.answers import check_answers, frame_of
from stedfm_hf.studies.plan import next_trial
from stedfm_hf.studies.serving.export import answer_rows
from stedfm_hf.studies.serving.store import kept
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED, all_images
from tests.studies.examples import single_images
from tests.studies.serving.served import (
    KINDS,
    SCRIPT,
    Participant,
    client,
    fields,
    history,
    make_context,
    served_study,
    sources,
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_participant_goes_from_consent_to_the_end(tmp_path: Path, kind: str) -> None:
    context = make_context(served_study(kind), tmp_path)
    who = Participant(context)
    assert "I agree, start" in who.page() and "Look." in who.page()
    assert 'class="answer"' in who.start()
    pages = who.finish()
    answers = history(context)
    assert len(answers) == len(pages) and {each.kind for each in answers} == {"trial", "practice", "attention"}
    assert next_trial(context.study, who.id, kept(answers)) is None
    for each in pages:
        assert context.study.question in each and "of " in each
        shown = sources(each)
        assert shown and all(who.client.get(image).status_code == 200 for image in shown)
        assert not [path for path in all_images(context.study) if path in each]
        words = re.sub(r'data-key="\w"', "", each)
        assert not re.search(r'"(A\d?|B\d?|real|generated|c\d)"', words)  # ids and groups are not shown
    with context.store.reading() as transaction:
        frame = check_answers(frame_of(answer_rows(transaction)), context.study)
    assert frame["order"].tolist() == list(range(len(pages)))


def test_images_are_shown_one_at_a_time(tmp_path: Path) -> None:
    context = make_context(single_images(), tmp_path)
    who = Participant(context)
    page = who.start()
    assert "Real" in page and "Generated" in page and len(sources(page)) == 1
    assert len(who.finish()) == len(history(context)) == 18


def test_practice_trials_have_feedback_and_others_do_not(tmp_path: Path) -> None:
    context = make_context(served_study(CLASSIFY), tmp_path)
    who = Participant(context)
    page = who.start()
    assert "Practice 1 of 1" in page
    assert who.client.get(f"{who.path}/feedback/0").url.path == who.path
    page = who.post("answer", **fields(page), choice=1)
    assert "The answer is x; you chose y." in page and "the study begins" in page
    assert who.client.get(f"{who.path}/feedback/0").text == page
    page = who.post("answer", **fields(who.page()), choice=0)
    assert "The answer" not in page and who.client.get(f"{who.path}/feedback/1").url.path == who.path
    assert "1 of 7" in who.client.get(who.path).text or "2 of 7" in who.client.get(who.path).text
    other = Participant(context, who.client)
    assert "Right." in other.post("answer", **fields(other.start()), choice=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_answer_is_undone_by_a_new_row(tmp_path: Path, kind: str) -> None:
    context = make_context(served_study(kind, practice=[]), tmp_path)
    who = Participant(context)
    first = who.start()
    assert "Undo" not in first
    second = who.post("answer", **fields(first), choice=1)
    undo = fields(second, form='/undo"')
    back = who.post("undo", **undo)
    assert sources(back) == sources(first) and fields(back) | {"shown": "", "attempt": "0"} == fields(first) | {
        "shown": ""
    }
    who.post("undo", **undo)  # a double click undoes no other answer
    who.post("answer", **fields(first), choice=1)  # the page of the undone answer is out of date
    assert [each.undone for each in history(context)] == [True]
    assert sources(who.post("answer", **fields(back), choice=1)) == sources(second)
    assert [(each.answer, each.undone) for each in history(context)] == [
        (each.answer, undone) for each, undone in zip(history(context)[:1] * 2, (True, False), strict=True)
    ]
    who.finish()
    page = who.page()
    assert "Undo the last answer" in page
    who.post("undo", **fields(page, form='/undo"'))
    assert "Thank you" not in who.page()


def test_a_second_answer_to_a_page_changes_nothing(tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE), tmp_path)
    who = Participant(context)
    page = who.start()
    for choice in (0, 1, 0):  # a double click, a reload of the form, a second tab
        who.post("answer", **fields(page), choice=choice)
    assert len(history(context)) == 1


def test_a_double_click_does_not_answer_the_next_trial(tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE), tmp_path, shortest_s=60.0)
    who = Participant(context)
    page = who.start()
    assert fields(who.post("answer", **fields(page), choice=0))["trial"] == "0" and not history(context)
    who.post("answer", **fields(page) | {"shown": "0"}, choice=0)
    assert len(history(context)) == 1


def test_response_times_are_those_of_the_browser_if_they_are_possible(tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE, 8), tmp_path)
    who = Participant(context)
    who.start()
    for seconds in ("2.345", "nan", "-1", "1e9", "text", ""):
        who.post("answer", **fields(who.page()) | {"seconds": seconds}, choice=0)
    times = [each.response_s for each in history(context)]
    assert times[0] == 2.345 and all(0 <= each < 2 for each in times[1:])


def test_confidence_is_asked(tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE, confidence=True), tmp_path)
    who = Participant(context)
    page = who.start()
    assert "How confident are you?" in page and "Choose A or B first." in page
    for confidence in ("", "0", "6"):
        form = fields(page) | {"choice": "0", "confidence": confidence}
        assert who.client.post(f"{who.path}/answer", data=form).status_code == 400
    who.finish(confidence=4)
    assert {each.confidence for each in history(context)} == {4}


def test_nothing_is_answered_before_the_consent(tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE), tmp_path)
    who = Participant(context)
    page = who.post("answer", trial=0, attempt=0, shown=0, choice=0)
    assert "I agree, start" in page and not history(context)


def test_orders_differ_between_participants_and_are_reproduced(tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE, 12), tmp_path)
    people = [Participant(context) for _ in range(2)]
    for each in people:
        each.start()
        each.finish()
    answers = history(context)
    orders = [[(a.stimulus, a.options) for a in answers if a.participant == each.id] for each in people]
    assert orders[0] != orders[1]
    for each, order in zip(people, orders, strict=True):
        given: list[str] = []
        for stimulus, options in order:
            trial = next_trial(context.study, each.id, given)
            assert trial is not None and (trial.stimulus, trial.options) == (stimulus, options)
            given.append(options[0])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_and_file_names_are_escaped(tmp_path: Path, kind: str) -> None:
    more: dict[str, Any] = {
        "title": SCRIPT,
        "question": SCRIPT,
        "instructions": SCRIPT,
        "consent": SCRIPT,
        "confidence": True,
    }
    of = served_study(kind, **more)
    shown: list[dict[str, Any]]
    if kind == CLASSIFY:
        shown = [{"id": SCRIPT, "image": f"{SCRIPT}.png".replace("/", "_"), "truth": SCRIPT, "group": SCRIPT}]
        trials: dict[str, Any] = {"stimuli": shown, "practice": [shown[0] | {"id": "p"}], "attention": []}
        of = served_study(kind, classes=[SCRIPT, "b"], expect={}, **trials, **more)
    elif kind in (CHOOSE, RANK):
        practice: list[dict[str, Any]] = [
            {"id": "p", "options": {SCRIPT: "a'\"<b>.png", "B": "b.png"}, "truth": SCRIPT}
        ]
        if kind == CHOOSE:
            shown = [{"id": SCRIPT, "options": {SCRIPT: "a'\"<b>.png", "B": "b.png"}}]
            of = served_study(kind, stimuli=shown, practice=practice, attention=[], expect={}, **more)
        else:
            of = served_study(kind, practice=practice, **more)
    context = make_context(of, tmp_path, is_open=True)
    who = Participant(context)
    pages = [who.page(), who.start(), who.client.get(f"{who.path}/pause").text]
    form = fields(pages[1]) | {"choice": "1", "confidence": "3"}
    pages += [who.post("answer", **form), *who.finish(confidence=1), who.page()]
    pages += [who.client.get(context.organiser_link).text, who.client.get(context.open_link or "").text]
    assert all("&lt;script&gt;" in each and "<script>" not in each and "<b>" not in each for each in pages)
    assert all(who.client.get(each).status_code == 200 for each in sources(pages[1]))


def test_a_token_opens_nothing_of_another_participant(tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE), tmp_path)
    one, other = Participant(context), Participant(context)
    image = sources(one.start())[0]
    assert one.client.get(image).status_code == 200
    assert one.client.get(image.replace(one.token, other.token)).status_code == 404
    others = sources(other.start())
    assert {each.rpartition("/")[2] for each in others}.isdisjoint(
        each.rpartition("/")[2] for each in sources(one.page())
    )
    one.post("answer", **fields(one.page()), choice=0)
    assert {each.participant for each in history(context)} == {one.id}
    for token in (one.id, context.organiser, context.store.facts()["join"], one.token[:-1], one.token.lower()):
        assert one.client.get(f"/p/{token}").status_code == 404
    for path in (f"/organiser/{one.token}", f"/organiser/{one.token}/answers.parquet", f"/join/{one.token}"):
        assert one.client.get(path).status_code == 404


def test_the_open_link_makes_participants_up_to_a_limit(tmp_path: Path) -> None:
    context = make_context(served_study(REAL_OR_GENERATED), tmp_path, is_open=True, max_participants=2)
    pages, link = client(context), context.open_link
    assert link is not None and pages.get(link).status_code == 200
    with context.store.reading() as transaction:
        assert transaction.participants() == []  # a preview of the link makes none
    paths = {pages.post(link).url.path for _ in range(2)}
    assert len(paths) == 2 and all(pages.get(each).status_code == 200 for each in paths)
    assert pages.post(link).status_code == 403
    closed = client(make_context(served_study(CHOOSE), tmp_path / "closed"))
    assert closed.get(link).status_code == 404


def test_the_organiser_invites_and_downloads(tmp_path: Path) -> None:
    context = make_context(served_study(RANK), tmp_path)
    who = Participant(context)
    who.start()
    page = who.client.get(context.organiser_link).text
    assert "1 of 1 invited participants have started, 0 are done. 0 answers" in page
    who.finish()
    assert "1 are done" in who.client.get(context.organiser_link).text
    made = who.client.post(f"{context.organiser_link}/invite", data={"participants": "3"})
    links = re.findall(r"http://127.0.0.1:8330/p/([\w-]{32})", made.text)
    assert len(links) == 3 and all(who.client.get(f"/p/{each}").status_code == 200 for each in links)
    assert "of 4 invited" in made.text and str(made.url) == context.organiser_link  # a reload makes no more links
    again = who.client.post(f"{context.organiser_link}/invite", data={"participants": "1"}).text
    assert "of 5 invited" in again and all(each in again for each in links)
    assert "New links" not in client(context).get(context.organiser_link).text  # after the next start
    table = who.client.get(f"{context.organiser_link}/answers.parquet")
    assert table.content[:4] == b"PAR1" and who.token.encode() not in table.content


def test_a_wrong_link_says_what_to_do(tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE), tmp_path)
    pages = client(context)
    assert "opened by a private link" in pages.get("/p/wrong").text
    page = pages.get("/organiser/wrong")
    assert page.status_code == 404 and "is new at every start of the server; its terminal shows" in page.text
