"""What the tests of the documentation read in a page, and how they run and report it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import blocks
from tests.docs.blocks import Command, read_blocks, read_commands
from tests.docs.running import SnippetError, run_blocks
from tests.docs.world import needed_parts, output_of


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of a page that a test writes, in a folder that is also the current one."""
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "page.md"


def test_blocks_have_a_language_a_line_and_a_reason(page: Path) -> None:
    page.write_text(
        "# A\n\n```bash\nstedfm doctor\n```\n\n<!-- not run: needs a GPU -->\n```python\n1\n```\n\n```\nx\n```\n"
    )
    found = [(block.line, block.language, block.code, block.not_run) for block in read_blocks(page)]
    assert found == [(4, "bash", "stedfm doctor\n", None), (9, "python", "1\n", "needs a GPU"), (13, "", "x\n", None)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- not run -->\n```bash\nls\n```\n", "page.md:1: write <!-- not run: REASON -->"),
        ("<!-- not run: why -->\n\nText\n", "page.md:3: no code block follows"),
        ("Text\n\n    ls\n", "page.md:3: the code is indented"),
    ],
)
def test_a_page_against_the_rules_is_refused(page: Path, text: str, words: str) -> None:
    page.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_blocks(page)


def test_commands_are_joined_and_parsed(page: Path) -> None:
    page.write_text(
        "```bash\n# first\nA=1 stedfm embed 'x #/*.tif' \\\n  --output o   # exit status 1\n"
        "stedfm info x | head\n```\n"
    )
    (block,) = read_blocks(page)
    embed, info = read_commands(block)
    assert (embed.line, embed.exit_status, embed.is_plain, embed.is_stedfm) == (3, 1, True, True)
    assert embed.words == (["stedfm", "embed", "x #/*.tif", "--output", "o"], {"A": "1"})
    assert (info.line, info.exit_status, info.is_plain, info.words[0]) == (5, 0, False, ["stedfm", "info", "x"])


@pytest.mark.parametrize("text", ["model=demo", "export A=1", "cd run", "for f in a b; do", "cat <<EOF"])
def test_lines_that_later_ones_depend_on_are_known(text: str) -> None:
    assert Command(1, text).changes_shell and not Command(1, f"echo '{text}'").changes_shell


def test_a_page_gets_the_parts_that_it_does_not_make(page: Path) -> None:
    page.write_text(
        "```bash\nstedfm data build images/ --output ./my-crops/  # crops\nstedfm data stats my-crops\n```\n"
        '```python\nread_image("cell.tif")  # not fields/\n```\n'
    )
    assert needed_parts(read_blocks(page)) == ["images", "cell.tif"]
    assert output_of("stedfm convert MAE_SMALL_STED ./stedfm-vit-small") == "stedfm-vit-small"


def test_blocks_run_in_their_order(page: Path) -> None:
    page.write_text(
        "```yaml\n# mine.yaml\nseed: 3\n```\n```python\nx = 1\n```\n"
        "```python\nassert x == 1 and __name__ == '__main__'\n```\n"
        "```bash\nstedfm info nothing.tif  # exit status 2\ntest -f mine.yaml\n```\n"
        "```bash\nname=mine\ntest -f $name.yaml\n```\n"
    )
    run_blocks(read_blocks(page))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            "```bash\nls\nstedfm info nothing.tif\n```",
            r"page\.md:4: exit status 2 instead of 0\n    stedfm info.*\n.*no such",
        ),
        ("```bash\nls nothing\n```", r"page\.md:3: exit status 2 instead of 0\n    ls nothing\n.*nothing"),
        ("```bash\npip install x\n```", r"page\.md:3: exit status 1 instead of 0\n(.|\n)*<!-- not run: REASON -->"),
        ("```python\nx = 1\n\nx.y\n```", r"page\.md:5: AttributeError\n(.|\n)*object has no attribute 'y'"),
    ],
)
def test_a_failure_names_the_line_and_shows_the_output(page: Path, block: str, words: str) -> None:
    page.write_text(f"\n{block}\n")
    with pytest.raises(SnippetError, match=words):
        run_blocks(read_blocks(page))
