"""Studies in headless Chromium, as participants use them; skipped where Chromium or Playwright is not installed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("playwright")

from playwright.sync_api import Browser, Locator, Page  # noqa: E402
from playwright.sync_api import Error as BrowserError  # noqa: E402

from docs.tools.check_site import find_chromium  # noqa: E402
from stedfm_hf.studies.plan import next_trial  # noqa: E402
from stedfm_hf.studies.serving.context import Context  # noqa: E402
from stedfm_hf.studies.serving.store import Store, kept  # noqa: E402
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED, parse_study  # noqa: E402
from tests.app.browsers import chromium  # noqa: E402
from tests.studies.examples import stimuli, values  # noqa: E402
from tests.studies.serving.served import (  # noqa: E402
    Participant,
    history,
    make_context,
    running,
    served_study,
    write_images,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


class Window:
    """Window of a participant.

    Args:
        browser: Browser.
        context: Served pages.
        path: Path of the private link.
        settings: Settings of the browser context.
    """

    def __init__(self, browser: Browser, context: Context, path: str, **settings: Any) -> None:
        self.context = browser.new_context(**settings)
        self.context.set_default_timeout(10_000)
        self.problems: list[str] = []
        self.address = f"{context.address}{path}"
        self.page = self.open()

    def open(self) -> Page:
        """Open the private link in a tab."""
        page = self.context.new_page()
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(self.address)
        return page

    def start(self) -> None:
        """Agree to take part."""
        self.page.get_by_role("button", name="I agree, start").click()

    def step(self, press: Callable[[Page], None]) -> bool:
        """Answer a trial, or go on after feedback; returns whether there was something to do."""
        page = self.page
        if page.get_by_role("heading", name="Thank you").count():
            return False
        if page.locator(".verdict").count():
            page.get_by_role("button", name="Continue").click()
            return True
        before = page.locator("[name=trial]").first.input_value()
        press(page)
        page.wait_for_function(
            "before => document.querySelector('.verdict, .text')"
            " || document.querySelector('[name=trial]')?.value !== before",
            arg=before,
        )
        return True


def ready(page: Page) -> Locator:
    """Options of a trial, when the pause is over in which a double click is ignored."""
    page.locator("form.is-ready").wait_for()
    return page.locator("form.is-ready .option")


def click_first(page: Page) -> None:
    """Answer with the mouse."""
    ready(page).first.click()


def press_key(page: Page) -> None:
    """Answer with the keyboard, where the confidence is asked, too."""
    ready(page)
    page.keyboard.press("b")
    if page.locator(".confidence").count():
        page.keyboard.press("4")


@pytest.mark.parametrize("kind", [CHOOSE, CLASSIFY, REAL_OR_GENERATED, RANK])
def test_five_people_at_once_finish_a_study(browser: Browser, tmp_path: Path, kind: str) -> None:
    more: dict[str, Any] = {"confidence": True} if kind == REAL_OR_GENERATED else {}
    number = 2 if kind == RANK else 1
    more |= {"practice": []} if kind == RANK else {}
    context = make_context(served_study(kind, number, **more), tmp_path)
    people = [Participant(context) for _ in range(5)]
    with running(context) as served:
        windows = [Window(browser, served, each.path) for each in people]
        for window in windows:
            window.start()
        working = windows
        while working:
            working = [
                each
                for number, each in enumerate(working)
                if each.step(press_key if number % 2 or context.study.confidence else click_first)
            ]
        for window in windows:
            assert window.problems == []
            window.context.close()
    answers = history(context)
    for person in people:
        own = [each for each in answers if each.participant == person.id]
        assert next_trial(context.study, person.id, kept(own)) is None
        assert [each.trial for each in own] == list(range(len(own)))
        assert all(0.2 < each.response_s < 10 for each in own)
    assert max(Counter((each.participant, each.trial) for each in answers).values()) == 1
    assert len({each.participant for each in answers}) == 5


def test_reload_back_double_click_and_two_tabs_are_safe(browser: Browser, tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE, 6, practice=[], attention=[]), tmp_path)
    who = Participant(context)
    with running(context) as served:
        window = Window(browser, served, who.path)
        window.start()
        page = window.page

        def shown() -> list[str]:
            ready(page)
            return [str(each.get_attribute("src")) for each in page.locator("img").all()]

        first = shown()
        page.reload()
        assert shown() == first
        page.locator(".option").first.dblclick()
        second = shown()
        assert second != first and len(history(context)) == 1
        other = window.open()
        ready(other)
        page.locator(".option").nth(1).click()
        third = shown()
        other.locator(".option").first.click()  # the same trial, in a tab that is out of date
        other.wait_for_load_state()
        assert [each.answer for each in history(context)][1] == history(context)[1].options[1]
        assert len(history(context)) == 2 and "3 of 6" in other.content()
        page.go_back()
        assert shown() in (first, second, third)
        if shown() == third:
            page.locator(".option").first.click()
            shown()
        page.goto(window.address)
        count = len(history(context))
        assert count in (2, 3)
        page.keyboard.press("Backspace")
        page.wait_for_timeout(300)
        assert [each.undone for each in history(context)] == [False] * (count - 1) + [True]
        assert shown() in (second, third)
        page.get_by_role("link", name="Pause").click()
        page.get_by_text("come back by your private link").wait_for()
        page.get_by_role("link", name="Continue").click()
        assert len(shown()) == 2 and window.problems == []
        window.context.close()


def test_a_lost_connection_loses_no_answer(browser: Browser, tmp_path: Path) -> None:
    context = make_context(served_study(CHOOSE, 3, practice=[], attention=[]), tmp_path)
    who = Participant(context)
    with running(context) as served:
        window = Window(browser, served, who.path)
        window.start()
        ready(window.page)
        window.context.set_offline(True)
        window.page.locator(".option").first.click()
        window.page.wait_for_timeout(300)
        assert history(context) == []
        window.context.set_offline(False)
        window.page.goto(window.address)
        # The request arrives, and the response is lost.
        window.context.route("**/answer", lambda route: (route.fetch(max_redirects=0), route.abort()))
        click_first(window.page)
        window.page.wait_for_timeout(500)
        window.context.unroute("**/answer")
        assert len(history(context)) == 1
        window.page.goto(window.address)
        assert "2 of 3" in window.page.content()
        while window.step(click_first):
            pass
        window.context.close()
    assert [each.trial for each in history(context)] == [0, 1, 2]


def test_pages_work_without_scripts_and_fit_a_phone(browser: Browser, tmp_path: Path) -> None:
    context = make_context(served_study(CLASSIFY, 1), tmp_path)
    who = Participant(context)
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with running(context) as served:
        window = Window(browser, served, who.path, java_script_enabled=False, **phone)
        window.start()
        page = window.page
        page.locator("button.option").first.tap()
        page.locator(".continue button").tap()
        for number in (1, 2, 3):
            page.get_by_text(f"{number} of 3").wait_for()
            page.locator("button.option").first.tap()
        page.get_by_role("heading", name="Thank you").wait_for()
        window.context.close()
        plain = Window(browser, served, Participant(context).path, **phone)
        plain.start()
        ready(plain.page)
        assert plain.page.evaluate("document.documentElement.scrollWidth") <= 390
        plain.context.close()
    assert len(history(context)) == 4


def test_a_killed_server_loses_at_most_the_answer_in_flight(browser: Browser, tmp_path: Path) -> None:
    content = values(CHOOSE, 4, consent="I agree.")
    write_images(parse_study(content), tmp_path)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = [sys.executable, "-m", "stedfm_hf.cli", "study", "serve", "study.yaml", "--open", "--port", port]

    def serve() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        assert process.stderr is not None
        for line in process.stderr:
            if "for participants: " in line:
                return process, line.partition("for participants: ")[2].strip()
        raise AssertionError("the server did not start")

    process, link = serve()
    window = browser.new_context()
    page = window.new_page()
    try:
        page.goto(link)
        page.get_by_role("button", name="Take part").click()
        private = page.url
        page.get_by_role("button", name="I agree, start").click()
        for number in (1, 2):
            page.get_by_text(f"{number} of 4").wait_for()
            click_first(page)
        page.get_by_text("3 of 4").wait_for()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(BrowserError, match="CONNECTION_REFUSED"):
            page.goto(private)
        process, again = serve()
        assert again == link
        page.goto(private)
        for number in (3, 4):
            page.get_by_text(f"{number} of 4").wait_for()
            click_first(page)
        page.get_by_role("heading", name="Thank you").wait_for()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        window.close()
    with Store(tmp_path / "answers.sqlite").reading() as transaction:
        assert [each.trial for each in transaction.history()] == [0, 1, 2, 3]
    assert process.returncode == 0


PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
BUTTONS = "[...document.querySelectorAll('main :is(button, label, a)')].map((each) => each.getBoundingClientRect())"
IMAGES = "[...document.images].map((each) => Math.min(each.clientWidth, each.clientHeight))"
"""Smallest of width and height of each image, in pixels."""


def three_maps() -> dict[str, Any]:
    """Three maps to choose from, and their image."""
    shown = [each | {"image": "cell.png"} for each in stimuli(CHOOSE, 1, "ABC")]
    return {"stimuli": shown, "attention": [], "expect": {}}


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (CHOOSE, three_maps()),
        (CLASSIFY, {"classes": ["x", "y", "z", "Other", "Unclassifiable"]}),
        (REAL_OR_GENERATED, {}),
        (RANK, {}),
    ],
    ids=["choose", "classify", "real-or-generated", "rank"],
)
def test_all_buttons_are_within_the_window(
    browser: Browser, tmp_path: Path, kind: str, more: dict[str, Any], size: dict[str, Any]
) -> None:
    of = served_study(kind, 1, practice=[], confidence=True, question="Which image shows it best?", **more)
    context = make_context(of, tmp_path)
    with running(context) as served:
        window = Window(browser, served, Participant(context).path, **size)
        window.start()
        ready(window.page)
        width, height = size["viewport"].values()
        boxes = window.page.evaluate(BUTTONS)
        assert len(boxes) > 6 and all(
            0 <= box["left"] <= box["right"] <= width and 0 <= box["top"] <= box["bottom"] <= height for box in boxes
        )
        assert min(window.page.evaluate(IMAGES)) >= 100
        window.context.close()


def test_a_confidence_without_an_answer_says_what_is_missing(browser: Browser, tmp_path: Path) -> None:
    of = served_study(REAL_OR_GENERATED, 2, practice=[], confidence=True)
    context = make_context(of, tmp_path)
    with running(context) as served:
        window = Window(browser, served, Participant(context).path, **DESKTOP)
        window.start()
        page = window.page
        ready(page)
        pause = page.get_by_role("link", name="Pause").bounding_box()
        page.keyboard.press("4")
        page.get_by_text("Choose A or B first.").wait_for()
        page.keyboard.press("b")
        page.get_by_text("How confident are you?").wait_for()
        page.keyboard.press("4")
        page.get_by_role("button", name="Undo the last answer").wait_for()
        after = page.get_by_role("link", name="Pause").bounding_box()
        assert pause and after and pause["x"] == after["x"]
        assert window.problems == []
        window.context.close()
