"""The check of the site in a browser finds what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.tools import check_site as check_site_module
from docs.tools.check_site import check_site, find_chromium

PAGE = """<!doctype html><title>Page</title><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">{}"""
SEARCH = '<form><input name="query"><p class="md-search-result__item">embed</p></form>'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt-get install chromium) on the PATH"),
]


def problems(site: Path, **pages: str) -> list[str]:
    for name, body in {"index": SEARCH, **pages}.items():
        (site / f"{name}.html").write_text(PAGE.format(body), "utf-8")
    chromium = find_chromium()
    assert chromium is not None
    return check_site(site, chromium=chromium, screenshots=site / "pictures")


def test_a_sound_site_has_no_problems(tmp_path: Path) -> None:
    assert problems(tmp_path) == []
    assert {path.parent.name for path in tmp_path.rglob("*.png")} == {"wide", "phone"}


def test_what_is_wrong_is_reported(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        missing='<img src="missing.png">',
        other='<img src="http://192.0.2.1/a.png">',
        script="<script>throw new Error('broken')</script>",
        wide='<div style="width: 800px">wide</div>',
        scrolls='<div style="overflow: auto"><div style="width: 800px">wide</div></div>',
    )
    pages = {each.partition(" ")[0] for each in found}
    assert pages == {"missing.html", "other.html", "script.html", "wide.html"}
    assert any(each.startswith("missing.html (wide): 404") for each in found)
    assert any("requests http://192.0.2.1/a.png" in each for each in found)
    assert any("broken" in each for each in found)
    assert [each for each in found if each.startswith("wide.html")][0].startswith("wide.html (phone): wider than")


def test_a_search_without_results_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_site_module, "SEARCH_SECONDS", 1)
    assert problems(tmp_path, index='<input name="query">') == [
        "search: no result",
        "search without a server: no result",
    ]
