"""Every command line of the README and the docs is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stedfm_hf.cli import main
from stedfm_hf.runs import command_line
from stedfm_hf.runs.result import Result

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def documented(page: Path) -> Iterator[str]:
    """The command lines in the code blocks of a page, without their comments."""
    blocks = re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            if line.removeprefix("$ ").startswith("stedfm ") and "..." not in line:
                yield re.sub(r"\s+#.*", "", line.removeprefix("$ "))


LINES = [(page.name, line) for page in PAGES for line in documented(page)]


def test_there_are_such_lines() -> None:
    assert len(LINES) > 40


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line}"[:80] for page, line in LINES])
def test_a_documented_command_is_understood(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[Any] = []

    def call(function: str, settings: Any) -> Result:
        called.append(settings)
        return Result()

    monkeypatch.setattr(command_line, "call", call)
    monkeypatch.chdir(ROOT)
    status, told = main(shlex.split(line)[1:]), capsys.readouterr().err
    # A folder that is not here is as good an answer: the words were understood.
    assert (status == 0 and (called or "--help" in line)) or "no such " in told, told
