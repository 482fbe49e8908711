"""One vocabulary: the glossary is kept, summary lines start with a verb, and long functions have a docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from stedfm_hf.cli import main
from stedfm_hf.runs.settings import option_of
from tests.command_lines import commands, settings_of_commands
from tests.vocabulary import VERBS, glossary

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "stedfm_hf").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORDS = re.compile("|".join(f"(?:{word})" for word in glossary(ROOT / "CONTRIBUTING.md")), re.IGNORECASE)


def found_in(text: str) -> list[str]:
    """Return the lines of a text that use a word of the left column, with the word first."""
    return [f"{match.group()!r}: {line.strip()}" for line in text.splitlines() if (match := WORDS.search(line))]


@pytest.fixture(scope="module", params=MODULES, ids=[path.relative_to(ROOT).as_posix() for path in MODULES])
def tree(request: pytest.FixtureRequest) -> ast.Module:
    """Return a module, parsed once for all tests."""
    return ast.parse(request.param.read_text(encoding="utf-8"))


def prose(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and messages of a module with their line numbers; a message has at least three words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(each.value) if isinstance(each, ast.Constant) else "..." for each in node.values)
        else:
            continue
        if len(text.split()) > 2:
            yield node.lineno, text


def test_docstrings_and_messages_keep_to_the_glossary(tree: ast.Module) -> None:
    assert not [f"{line}: {each}" for line, text in prose(tree) for each in found_in(text)]


@pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES])
def test_pages_keep_to_the_glossary(page: Path) -> None:
    assert not found_in(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_keeps_to_the_glossary(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert not found_in(shown)
    summary = " ".join(shown.split("\n\n")[1].split())
    assert summary.split()[0] in VERBS, summary


def test_functions_are_summarised_with_an_imperative_verb(tree: ast.Module) -> None:
    wrong = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or any(
            "property" in ast.unparse(each) for each in node.decorator_list
        ):
            continue
        text = ast.get_docstring(node)
        if text and text.split()[0].rstrip(".,:") not in VERBS:
            wrong.append(f"{node.lineno}: {node.name}: {text.splitlines()[0]}")
    assert not wrong


LONG_FUNCTION = 12
"""Number of lines from which a function needs a docstring."""


def functions_without_docstring(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the long functions and methods that have no docstring; dunder and nested functions are exempt."""
    owners: list[ast.Module | ast.ClassDef] = [
        tree,
        *(each for each in ast.walk(tree) if isinstance(each, ast.ClassDef)),
    ]
    for owner in owners:
        for node in owner.body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and not node.name.startswith("__")
                and (node.end_lineno or 0) - node.lineno + 1 >= LONG_FUNCTION
                and ast.get_docstring(node) is None
            ):
                yield node


def test_long_functions_have_a_docstring(tree: ast.Module) -> None:
    assert not [f"{node.lineno}: {node.name}" for node in functions_without_docstring(tree)]


@pytest.mark.parametrize("kind", settings_of_commands(), ids=lambda kind: kind.__name__)
def test_options_are_described_by_noun_phrases(kind: type) -> None:
    helps = {each.name: option_of(each).help for each in fields(kind)}
    assert not {
        name: text
        for name, text in helps.items()
        if re.match(r"(Of|That|In|What|Which|How)\b", text) or text[-1] != "."
    }
