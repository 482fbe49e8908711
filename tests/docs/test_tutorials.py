"""The generator of the tutorial pages: scripts become executed pages, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nbclient.exceptions import CellExecutionError

from docs.tools.tutorials import Page, build_page, draft_page, hash_files

SCRIPT = """\
# %% [markdown]
# # Count rings

# %%
import sys
print("progress", file=sys.stderr)
print("  two\\nlines")

# %% language="bash"
# echo from bash

# %% alt="A line from 1 to 2"
import matplotlib.pyplot as plt
plt.plot([1, 2]);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorials")
    (folder / "package").mkdir()
    (folder / "package" / "code.py").write_text("one = 1\n", "utf-8")
    (folder / "count-rings.py").write_text(SCRIPT, "utf-8")
    return folder


def build(folder: Path, name: str = "count-rings") -> Page:
    return build_page(folder / f"{name}.py", package=folder / "package", cache=folder / "cache")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return build(folder)


def test_a_page_shows_code_output_and_figures(page: Page) -> None:
    text = page.files["count-rings.md"].decode()
    (figure,) = [name for name in page.files if name.endswith(".png")]
    assert text.startswith("# Count rings")
    assert "```text\n  two\nlines\n```" in text
    assert "```bash\necho from bash\n```" in text and "```text\nfrom bash\n```" in text
    assert f"![A line from 1 to 2]({figure})" in text
    assert page.files[figure].startswith(b"\x89PNG")


def test_a_page_leaves_out_what_is_printed_to_standard_error(page: Page) -> None:
    assert "\nprogress" not in page.files["count-rings.md"].decode()


def test_the_executed_notebook_can_be_downloaded(page: Page) -> None:
    notebook = json.loads(page.files["count-rings.ipynb"])
    assert notebook["cells"][1]["outputs"][0]["text"] == ["  two\n", "lines\n"]
    assert "](count-rings.ipynb)" in page.files["count-rings.md"].decode()


def test_a_tutorial_runs_again_only_after_a_change(page: Page, folder: Path) -> None:
    marker = folder / "cache" / "count-rings" / "work" / "marker"
    marker.touch()
    assert build(folder) == page and marker.exists()
    (folder / "package" / "code.py").write_text("one = 2\n", "utf-8")
    script = folder / "count-rings.py"
    assert build_page(script, package=folder / "package", cache=folder / "cache", any_package=True) == page
    assert build(folder).files.keys() == page.files.keys() and not marker.exists()


def test_a_draft_has_the_text_and_code_without_results(page: Page, folder: Path) -> None:
    draft = draft_page(folder / "count-rings.py")
    text = draft.files["count-rings.md"].decode()
    assert draft.files.keys() == {"count-rings.md", "count-rings.ipynb"}
    assert text.startswith("# Count rings") and "```bash\necho from bash\n```" in text
    assert "```text" not in text and "```text" in page.files["count-rings.md"].decode()


def test_a_tutorial_that_raises_fails_and_leaves_no_page(folder: Path) -> None:
    (folder / "broken.py").write_text("# %%\n1 / 0\n", "utf-8")
    for _ in range(2):
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            build(folder, "broken")


def test_a_tutorial_whose_command_fails_fails(folder: Path) -> None:
    (folder / "failing.py").write_text("# %%\n# !echo started\n# !exit 3\n", "utf-8")
    with pytest.raises(CellExecutionError, match="exit status 3: exit 3"):
        build(folder, "failing")


def test_a_renamed_file_changes_the_hash(tmp_path: Path) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("x", "utf-8")
    second.write_text("x", "utf-8")
    assert hash_files([first]) != hash_files([second])
