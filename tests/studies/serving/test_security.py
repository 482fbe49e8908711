from __future__ import annotations

import random
import sqlite3
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from stedfm_hf.studies.serving.context import Context
from stedfm_hf.studies.serving.security import MOST_BYTES
from stedfm_hf.studies.study import CHOOSE
from tests.studies.serving.served import Participant, client, fields, history, make_context, served_study

REQUESTS = 150
"""Number of malformed requests; 10,000 were sent by hand."""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(served_study(CHOOSE, confidence=True), tmp_path, is_open=True)


def test_pages_load_nothing_from_other_hosts_and_are_not_kept(context: Context) -> None:
    who = Participant(context)
    page = who.client.get(who.path)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    assert page.headers["cache-control"] == "no-store" and page.headers["referrer-policy"] == "same-origin"
    assert page.headers["x-content-type-options"] == "nosniff" and "server" not in page.headers
    for path, kind in (("/static/study.css", "text/css"), ("/static/study.js", "text/javascript")):
        assert who.client.get(path).headers["content-type"].startswith(kind)
    for text in (page.text, who.start()):
        assert " style=" not in text and "<style" not in text and "onclick" not in text
    for path in ("/", "/docs", "/openapi.json", "/p", "/organiser", f"{who.path}/answer", "/static/../store.py"):
        assert who.client.get(path).status_code in (404, 405)
    assert who.client.get("/favicon.ico").status_code == 204


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "[", "127.0.0.1@evil.example", "[::1"])
def test_other_hosts_are_refused(context: Context, host: str) -> None:
    assert client(context).get("/favicon.ico", headers={"Host": host}).status_code == 400


def test_forms_of_other_origins_are_refused(context: Context) -> None:
    who = Participant(context)
    for origin in ("https://evil.example", "null", "", "http://127.0.0.1:9", "http://["):
        assert who.client.post(f"{who.path}/start", headers={"Origin": origin}).status_code == 403
    assert "I agree" in who.page()
    assert who.client.post(f"{who.path}/start", headers={"Origin": "http://127.0.0.1:8330"}).status_code == 200
    assert "I agree" not in who.page()


def test_forms_are_small_and_complete(context: Context) -> None:
    who = Participant(context)
    form = fields(who.start()) | {"choice": "0", "confidence": "1"}
    post: Any = lambda **more: who.client.post(f"{who.path}/answer", **more).status_code  # noqa: E731
    assert post(data=form | {"more": "x" * MOST_BYTES}) == 413
    for name in ("trial", "attempt", "shown", "choice", "confidence"):
        assert post(data={key: value for key, value in form.items() if key != name}) == 400
        for value in ("-1", "1.0", "٣", "9" * 30, "x", "0 "):
            assert post(data=form | {name: value}) == 400, (name, value)
    assert post(data=form | {"choice": "2"}) == 400 and not history(context)
    assert post(content=b"\xff\xfe") == 400 and post(content="&".join("abcdefghijklmn")) == 400
    assert post(files={"choice": b"0"}) == 400 and post(json=form) == 400 and not history(context)
    back = who.client.post(f"{who.path}/answer", data={}).text
    assert "The form is not complete" in back and f'href="{who.path}"' in back
    assert post(data=form) == 200 and len(history(context)) == 1


def test_an_answer_that_cannot_be_stored_is_not_lost_silently(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = Participant(context)
    form = fields(who.start()) | {"choice": "0", "confidence": "1"}

    @contextmanager
    def full() -> Iterator[None]:
        raise sqlite3.OperationalError("database or disk is full")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(context.store, "writing", full)
        answer = who.client.post(f"{who.path}/answer", data=form)
    assert answer.status_code == 503 and "could not be saved" in answer.text
    who.post("answer", **form)
    assert len(history(context)) == 1


def send_malformed(pages: TestClient, who: Participant, context: Context, rng: random.Random) -> int:
    """Send a request of random parts; return its status."""
    words = ["p", "join", "organiser", "answer", "undo", "feedback", "images", "start", "pause", "invite", "static"]
    words += [who.token, context.organiser, context.store.facts()["join"], "answers.parquet", "0", "..", "%00", "%ff"]
    words += ["study.css", "\N{GRINNING FACE}", "%2e%2e%2f", "a" * 3000, "'--", "<script>", "-1", "9" * 40, "", "%"]
    names = ["trial", "attempt", "shown", "choice", "confidence", "seconds", "participants", "x"]
    path = "/" + "/".join(rng.choices(words, k=rng.randint(0, 5)))
    if rng.random() < 0.5:
        path = f"{who.path}/" + rng.choice(["answer", "undo", "start", "pause", "feedback/" + rng.choice(words)])
    letters = string.printable + "é\x00\N{GRINNING FACE}%&=;+"
    value: Any = lambda: rng.choice([*words, "nan", "inf", "1e999", "".join(rng.choices(letters, k=9))])  # noqa: E731
    form = "&".join(f"{rng.choice(names)}={value()}" for _ in range(rng.randint(0, 9)))
    body = rng.choice([form.encode(), form.encode("utf-16"), rng.randbytes(rng.randint(0, 50)), b"&" * 200])
    kinds = ["application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x", "\u00e9", ""]
    headers = {b"Content-Type": rng.choice(kinds).encode("latin-1")}
    method = rng.choice(["GET", "POST", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"])
    return pages.request(
        method, context.address + path, content=body, headers=headers, follow_redirects=False
    ).status_code


def test_malformed_requests_are_no_error_of_the_server(context: Context) -> None:
    pages = TestClient(client(context).app, base_url=context.address, raise_server_exceptions=False)
    who, rng = Participant(context, pages), random.Random(0)
    who.start()
    found = [send_malformed(pages, who, context, rng) for _ in range(REQUESTS)]
    assert max(found) < 500 and {200, 303, 400, 404} <= set(found)
    assert pages.get(who.path).status_code == 200
