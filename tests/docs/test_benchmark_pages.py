"""Every `make` target and module that the documentation names exists, with its options; pages keep their notes."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks.timing import write_page
from tests.docs.blocks import PAGES, ROOT, name_of

TEXTS = {name_of(page): page.read_text(encoding="utf-8") for page in PAGES}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MODULES = [
    (name, module, options)
    for name, text in TEXTS.items()
    for module, options in re.findall(r"python -m ((?:tests|stedfm_hf|docs)[\w.]*)([^`\n]*)", text)
]


@pytest.mark.parametrize("name", TEXTS)
def test_targets_exist(name: str) -> None:
    named = re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", TEXTS[name], re.MULTILINE)
    assert {each for pair in named for each in pair if each} <= TARGETS


@pytest.mark.parametrize(("name", "module", "options"), MODULES)
def test_modules_and_their_options_exist(name: str, module: str, options: str) -> None:
    found = find_spec(module)
    if found is not None and found.submodule_search_locations is not None:
        found = find_spec(f"{module}.__main__")
    assert found is not None and found.origin is not None, name
    source = Path(found.origin).read_text(encoding="utf-8")
    assert [each for each in re.findall(r"--[a-z-]+", options) if f'"{each}"' not in source] == []


def test_a_page_keeps_its_notes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_page(page, "# Title\n\nfirst\n")
    assert page.read_text() == "# Title\n\nfirst\n"
    page.write_text("# Title\n\nfirst\n\n## Notes\n\nBy hand.\n")
    write_page(page, "# Title\n\nsecond")
    assert page.read_text() == "# Title\n\nsecond\n\n## Notes\n\nBy hand.\n"
