"""Screenshots of a study for the documentation: `python -m docs.tools.study_screenshots STUDY`.

The command serves the study on this machine, visits it with Chromium as a participant, and writes
docs/images/study-phone.png. The study is that of the tutorial, build/tutorials/run-a-study/work/study/study.yaml.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from docs.tools.app_screenshots import FLAGS, save
from docs.tools.check_site import find_chromium
from stedfm_hf.studies.serving.application import create_app
from stedfm_hf.studies.serving.context import Context, private_link
from stedfm_hf.studies.serving.images import prepare_images
from stedfm_hf.studies.serving.serve import run_server
from stedfm_hf.studies.serving.store import create_store
from stedfm_hf.studies.study import read_study


def take_screenshot(browser: Browser, link: str) -> None:
    """Take a screenshot of the first trial after the practice, on a phone."""
    context = browser.new_context(viewport={"width": 390, "height": 700}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(link)
    page.locator("main form .button").click()
    while page.get_by_text("Practice ").count():
        page.locator("form.is-ready .option").first.click()
        page.get_by_role("button", name="Continue").click()
    page.locator("form.is-ready").wait_for()
    save(page, "study-phone")
    context.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve a study and take the screenshot.

    Args:
        argv: Arguments of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m docs.tools.study_screenshots", description=__doc__)
    parser.add_argument("study", type=Path, help="study file")
    file = parser.parse_args(argv).study
    study = read_study(file)
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        images, hashes = prepare_images(study, file.parent, Path(folder))
        store = create_store(Path(folder, "answers.sqlite"), study, hashes, address)
        with store.writing() as transaction:
            (token,) = transaction.invite(1)
        context = Context(study, store, images, address)
        with run_server(create_app(context), listening), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=FLAGS)
            take_screenshot(browser, private_link(address, token))
            browser.close()


if __name__ == "__main__":
    main()
