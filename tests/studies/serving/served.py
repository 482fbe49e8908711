"""Small studies with images, their pages, and participants without a browser."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from stedfm_hf.studies.serving.application import create_app
from stedfm_hf.studies.serving.context import Context
from stedfm_hf.studies.serving.images import prepare_images
from stedfm_hf.studies.serving.serve import run_server
from stedfm_hf.studies.serving.store import Answer, create_store
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED, Study, all_images
from tests.studies.examples import study

ADDRESS = "http://127.0.0.1:8330"
SCRIPT = "<script>alert('x')</script>"
"""Text that must never be part of a page unescaped."""


def served_study(kind: str, number: int = 3, **more: Any) -> Study:
    """A study with practice and attention trials."""
    extra: dict[str, Any] = {"options": {"A": "easy-a.png", "B": "easy-b.png"}, "truth": "A"}
    if kind == CLASSIFY:
        extra = {"image": "easy.png", "truth": "x"}
    elif kind == REAL_OR_GENERATED:
        extra = {"options": {"real": "easy-a.png", "generated": "easy-b.png"}, "truth": "real"}
    trials: dict[str, Any] = {name: [extra | {"id": f"{name}1"}] for name in ("practice", "attention")}
    if kind == RANK:
        trials |= {"example": "example.png"}
    return study(kind, number, **trials | {"consent": "I agree.", "instructions": "Look."} | more)


def write_images(of: Study, folder: Path, size: int = 24) -> None:
    """Write different images for all paths of a study."""
    rng = np.random.default_rng(1)
    for path in all_images(of):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size), np.uint8)).save(folder / path)


def make_context(of: Study, folder: Path, **more: Any) -> Context:
    """Pages of a study, with images and a new file of answers in a folder."""
    write_images(of, folder)
    (folder / "pages").mkdir(parents=True)
    files, hashes = prepare_images(of, folder, folder / "pages")
    store = create_store(folder / "answers.sqlite", of, hashes, ADDRESS)
    return Context(of, store, files, ADDRESS, **{"shortest_s": 0.0, **more})


def client(context: Context) -> TestClient:
    """Client of the pages of a study."""
    return TestClient(create_app(context), base_url=context.address)


def history(context: Context) -> list[Answer]:
    """All stored answers."""
    with context.store.reading() as transaction:
        return transaction.history()


def fields(page: str, form: str = 'class="answer"') -> dict[str, str]:
    """Fields of a form of a page."""
    content = page.partition(form)[2].partition("</form>")[0]
    return dict(re.findall(r'type="hidden" name="(\w+)" value="(\d*)"', content))


def sources(page: str) -> list[str]:
    """Addresses of the images of a page."""
    return re.findall(r'<img src="([^"]+)"', page)


class Participant:
    """Participant without a browser.

    Args:
        context: Pages of the study.
        pages: Client, to share it.
    """

    def __init__(self, context: Context, pages: TestClient | None = None) -> None:
        self.client = pages or client(context)
        with context.store.writing() as transaction:
            self.token = transaction.invite(1)[0]
        self.path = f"/p/{self.token}"
        found = context.store.participant(self.token)
        assert found is not None
        self.id = found

    def start(self) -> str:
        """Agree, and return the first page."""
        return self.post("start")

    def post(self, what: str, **form: Any) -> str:
        """Send a form, and return the page that follows."""
        answer = self.client.post(f"{self.path}/{what}", data={name: str(value) for name, value in form.items()})
        assert answer.status_code == 200, answer.text
        return str(answer.text)

    def page(self) -> str:
        """Return the page that is next."""
        return str(self.client.get(self.path).text)

    def finish(self, choose: Callable[[str], int] = lambda page: 0, **form: Any) -> list[str]:
        """Answer until the end, and return the pages of all trials."""
        seen, page = [], self.page()
        while 'class="answer" method' in page:
            seen.append(page)
            assert len(seen) < 100
            self.post("answer", **fields(page), choice=choose(page), **form)
            page = self.page()
        assert "Thank you" in page
        return seen


@contextmanager
def running(context: Context) -> Iterator[Context]:
    """Serve the pages at a free port; yields the context with its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        there = replace(context, address=f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert urlsplit(there.address).port
        with run_server(create_app(there), listening):
            yield there


KINDS = (CHOOSE, CLASSIFY, REAL_OR_GENERATED, RANK)
