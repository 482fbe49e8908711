"""Open every page of the built site in headless Chromium, wide and at phone width, and report what is wrong.

Wrong are: requests to another host, missing files, errors on the console, and pages that are wider than the window.

    python -m docs.tools.check_site                       # checks site/
    python -m docs.tools.check_site --screenshots DIR     # and saves a picture of every page
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

SITE = Path(__file__).parents[2] / "site"
WIDTHS = {"wide": 1440, "phone": 390}
SEARCH_SECONDS = 20
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_WIDEST = """() => {
  const limit = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= limit) return null;
  const cuts = (e) => ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX);
  const scrolls = (e) => e && (cuts(e) || scrolls(e.parentElement));
  const found = [...document.querySelectorAll("body *")].filter(
    (e) => e.getBoundingClientRect().right > limit + 1 && !scrolls(e.parentElement));
  const last = found.at(-1);
  return `${document.documentElement.scrollWidth} px: ` + (last ? last.outerHTML.slice(0, 120) : "?");
}"""


def find_chromium() -> str | None:
    """Return the path of Chromium, or None if it is not installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def check_site(site: Path, *, chromium: str, screenshots: Path | None = None) -> list[str]:
    """Return the problems of a built site, one line each.

    Args:
        site: Folder of the built site.
        chromium: Path of the browser.
        screenshots: Folder of the pictures; None saves none.
    """
    problems: list[str] = []
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    with _serve(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=_FLAGS)
        for width, pixels in WIDTHS.items():
            scheme: Literal["dark", "light"] = "dark" if width == "phone" else "light"
            context = browser.new_context(viewport={"width": pixels, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            found = _watch(page, address)
            for name in pages:
                _open_page(page, f"{address}/{name}", found)
                problems += [f"{name} ({width}): {each}" for each in found]
                found.clear()
                if screenshots is not None:
                    path = screenshots / width / f"{name.removesuffix('.html').replace('/', '--')}.png"
                    page.screenshot(path=path, full_page=True)
            context.close()
        problems += [f"search: {each}" for each in _check_search(browser, address)]
        problems += [f"search without a server: {each}" for each in _check_search(browser, site.resolve().as_uri())]
        browser.close()
    return problems


def _open_page(page: Page, url: str, problems: list[str]) -> None:
    """Open a page with all its images, and add to the problems if it is too wide."""
    page.goto(url, wait_until="load")
    page.evaluate("for (const image of document.images) image.loading = 'eager'")  # load images that are not seen yet
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    if overflow := page.evaluate(_WIDEST):
        problems.append(f"wider than the window: {overflow}")


def _check_search(browser: Browser, address: str) -> list[str]:
    """Search for a word and return what went wrong."""
    page = browser.new_page()
    problems = _watch(page, address)
    page.goto(f"{address}/index.html", wait_until="networkidle")
    page.locator("input[name=query]").press_sequentially("embed")
    try:
        page.wait_for_selector(".md-search-result__item", state="attached", timeout=SEARCH_SECONDS * 1000)
    except TimeoutError:
        problems.append("no result")
    page.close()
    return problems


def _watch(page: Page, address: str) -> list[str]:
    """Collect requests to other hosts, failed requests and errors of a page while it is open."""
    problems: list[str] = []
    own = (address, "data:", "blob:", "about:")
    page.on("request", lambda it: None if it.url.startswith(own) else problems.append(f"requests {it.url}"))
    # The next page aborts what the last one was still loading.
    page.on(
        "requestfailed",
        lambda it: None if it.failure == "net::ERR_ABORTED" else problems.append(f"failed: {it.url} ({it.failure})"),
    )
    page.on("response", lambda it: problems.append(f"{it.status}: {it.url}") if it.status >= 400 else None)
    page.on("pageerror", lambda it: problems.append(f"error: {it}"))
    page.on("console", lambda it: problems.append(f"console: {it.text}") if it.type == "error" else None)
    return problems


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the browser reports what fails."""


@contextmanager
def _serve(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface and yield its address."""
    handler = functools.partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def main() -> int:
    """Check a site and return the exit status: 0 without problems, 1 with some, 2 without a site or browser."""
    parser = argparse.ArgumentParser(description="Open every page of the site in Chromium and report problems.")
    parser.add_argument("site", nargs="?", type=Path, default=SITE, help="folder of the built site")
    parser.add_argument("--screenshots", type=Path, help="folder to save pictures of the pages in")
    args = parser.parse_args()
    chromium = find_chromium()
    if chromium is None or not (args.site / "index.html").is_file():
        missing = f"no such site: {args.site}. Run `make docs`." if chromium else "Chromium is not installed."
        print(missing, file=sys.stderr)
        return 2
    problems = check_site(args.site, chromium=chromium, screenshots=args.screenshots)
    print("\n".join(problems) if problems else f"{args.site}: no problems")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
