"""The app served on loopback, and Chromium to visit it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from docs.tools.check_site import find_chromium
from stedfm_hf.app.application import assemble, launch_options
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.app.visits import Visits

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
KNOWN = ("Method not implemented", "[svelte-i18n]", "/gradio_api/upload_progress?", "/gradio_api/upload?")
"""Parts of console messages of Gradio 6.31 that the app does not cause: warnings of its components, a race in the
progress of uploads (gradio issue 12002), and the status of an upload that is too large."""


class Visitor:
    """Visitor with a browser window, which records console messages and requests.

    Attributes:
        page: The page.
        messages: Console messages that are not known, and errors of scripts.
        hosts: Hosts that were asked.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page: Page = context.new_page()
        self.messages: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self._note(f"{message.text} ({message.location['url']})"))
        self.page.on("pageerror", lambda error: self.messages.append(f"script: {error}"))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(address)
        self.page.wait_for_selector("#image-view img")

    def _note(self, message: str) -> None:
        if not any(known in message for known in KNOWN):
            self.messages.append(message)

    def upload(self, file: Path, slot: str = "image") -> None:
        """Upload a file, and wait until it is opened or a message is shown."""
        self.page.set_input_files(f"#{slot}-file input[type=file]", file)
        self.page.locator(f"p:visible:has-text('{file.name}: ')").first.wait_for()
        self.page.wait_for_timeout(300)  # until the list of files is empty again

    def go_to(self, tab: str) -> None:
        """Choose a tab, in the menu if the window is too narrow for all."""
        in_menu = self.page.locator(".overflow-dropdown button", has_text=tab)
        if in_menu.count():
            self.page.get_by_role("button", name="More tabs").click()
            in_menu.click()
        else:
            self.page.get_by_role("tab", name=tab).click()

    def press(self, button: str) -> None:
        """Click a button."""
        self.page.get_by_role("button", name=button, exact=True).click()

    def source_of(self, image: str) -> str:
        """Return the address of a picture."""
        return str(self.page.locator(image).get_attribute("src"))

    def wait_for_another(self, image: str, before: str) -> None:
        """Wait until a picture has another address."""
        self.page.wait_for_selector(f"{image}:not([src='{before}'])")

    def alert(self) -> str:
        """Return the message that is shown."""
        return self.page.locator("[role=alert]:visible").first.inner_text()

    def download(self, end: str, folder: Path) -> Path:
        """Download a result.

        Args:
            end: End of the name of the file.
            folder: Folder to save it in.
        """
        link = self.page.locator(f"a[download$='{end}']:visible").first
        link.wait_for()
        with self.page.expect_download() as waiting:
            link.click()
        target = folder / waiting.value.suggested_filename
        waiting.value.save_as(target)
        return target


@contextmanager
def served(settings: AppSettings) -> Iterator[tuple[str, Visits]]:
    """Serve the app in this process; yields its address and its visits."""
    with pytest.MonkeyPatch.context() as patch:
        made: list[Visits] = []
        begin = Visits.__init__

        def noted(self: Visits, max_idle: float) -> None:
            begin(self, max_idle)
            made.append(self)

        patch.setattr(Visits, "__init__", noted)
        blocks, close = assemble(settings)
        try:
            _, address, _ = blocks.launch(prevent_thread_lock=True, **launch_options(settings))
            yield address, made[0]
        finally:
            blocks.close(verbose=False)
            close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=FLAGS)
        yield browser
        browser.close()


def visit(browser: Browser, address: str, **settings: Any) -> Visitor:
    """Open the app in a context of its own, as another person would.

    Args:
        browser: Browser.
        address: Address of the app.
        settings: Settings of the browser context.
    """
    context = browser.new_context(
        **{"viewport": {"width": 1440, "height": 1000}, "accept_downloads": True, **settings}
    )
    context.set_default_timeout(30_000)
    return Visitor(context, address)
