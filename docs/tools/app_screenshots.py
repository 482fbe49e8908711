"""Screenshots of the app for the documentation: `python -m docs.tools.app_screenshots`.

The command serves the app on this machine, visits it with Chromium, and writes docs/images/app-*.png. The image is
simulated.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from docs.tools.check_site import find_chromium
from stedfm_hf.app.application import assemble, launch_options
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.data.simulation.fields import simulate_field
from stedfm_hf.data.simulation.physics import SimulationSettings

IMAGES = Path(__file__).parents[1] / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LARGEST = 300_000
"""Size of the largest screenshot, in bytes."""


def write_image(file: Path) -> None:
    """Simulate a field with rings and fibres, and write it as a 16-bit TIFF."""
    image = simulate_field(["rings", "fibres"], seed=3, index=1, settings=SimulationSettings(height=640, width=640))
    facts = {"unit": "um", "axes": "YX"}
    tifffile.imwrite(file, image.image.astype(np.uint16), imagej=True, resolution=(50, 50), metadata=facts)


def save(page: Page, name: str, *, full_page: bool = False) -> None:
    """Write a screenshot with at most 160 colours.

    Raises:
        ValueError: If the file is too large for the repository.
    """
    page.wait_for_timeout(800)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=full_page))).convert("RGB")
    content = io.BytesIO()
    picture.quantize(160, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    if len(content.getvalue()) > LARGEST:
        raise ValueError(f"{name}: {len(content.getvalue())} bytes; make the window smaller")
    (IMAGES / f"{name}.png").write_bytes(content.getvalue())
    print(IMAGES / f"{name}.png", len(content.getvalue()))


def open_page(
    browser: Browser, address: str, image: Path, width: int, height: int, scheme: Literal["light", "dark"]
) -> Page:
    """Open the app in a window of a size, and upload the image."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, is_mobile=width < 500
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#image-view img")
    page.set_input_files("#image-file input[type=file]", image)
    page.locator(f"p:has-text('{image.name}: ')").first.wait_for()
    return page


def take_screenshots(browser: Browser, address: str, image: Path) -> None:
    """Take the screenshots of the pages that show the app."""
    page = open_page(browser, address, image, 1120, 1000, "light")
    page.get_by_role("tab", name="Find similar").click()
    page.get_by_role("button", name="Find similar images", exact=True).click()
    page.wait_for_selector("#similar img")
    page.locator("#patch-row input").fill("440")
    page.locator("#patch-column input").fill("303")
    page.locator("#patch-button").click()
    page.wait_for_selector("#patch-map img")
    page.set_viewport_size({"width": 1120, "height": 1480})
    save(page, "app-similar")
    page.set_viewport_size({"width": 1120, "height": 860})
    page.get_by_role("tab", name="Segment").click()
    page.get_by_label("Smallest object, in pixels").fill("20")
    page.get_by_role("button", name="Segment", exact=True).click()
    page.wait_for_selector("#overlay img")
    save(page, "app-segment")
    page.set_viewport_size({"width": 1120, "height": 1240})
    page.get_by_role("tab", name="Explain").click()
    page.locator("#explain-map").get_by_text("Patch colours").click()
    page.get_by_label("Only patches with structures").check()
    page.get_by_role("button", name="Explain", exact=True).click()
    page.wait_for_selector("#explained img")
    save(page, "app-explain")
    page.context.close()
    page = open_page(browser, address, image, 390, 844, "dark")
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    page.wait_for_selector("#reconstruction img")
    save(page, "app-phone", full_page=True)
    page.context.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the app and take the screenshots.

    Args:
        argv: Arguments of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m docs.tools.app_screenshots", description=__doc__)
    parser.parse_args(argv)
    settings = AppSettings(device="cpu", port=0)
    blocks, close = assemble(settings)
    try:
        _, address, _ = blocks.launch(prevent_thread_lock=True, **launch_options(settings))
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            image = Path(folder, "field.tif")
            write_image(image)
            browser = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=FLAGS)
            take_screenshots(browser, address, image)
            browser.close()
    finally:
        blocks.close(verbose=False)
        close()


if __name__ == "__main__":
    main()
