"""Every command line of the README and the docs is one that the command line takes; tests/docs runs them."""

from __future__ import annotations

from typing import Any

import pytest

from stedfm_hf.cli import main
from stedfm_hf.runs import command_line
from stedfm_hf.runs.result import Result
from tests.docs.blocks import PAGES, ROOT, name_of, read_blocks, read_commands

LINES = [
    (f"{name_of(page)}:{command.line}", command.words[0])
    for page in PAGES
    for block in read_blocks(page)
    if block.language == "bash"
    for command in read_commands(block)
    if command.is_stedfm and "$" not in command.bare
]


def test_there_are_such_lines() -> None:
    assert len(LINES) > 40


@pytest.mark.parametrize(("place", "words"), LINES, ids=[f"{place} {' '.join(words)}"[:80] for place, words in LINES])
def test_a_documented_command_is_understood(
    place: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[Any] = []

    def call(function: str, settings: Any) -> Result:
        called.append(settings)
        return Result()

    monkeypatch.setattr(command_line, "call", call)
    monkeypatch.chdir(ROOT)
    status, told = main(words[1:]), capsys.readouterr().err
    # A folder that is not here is as good an answer: the words were understood.
    assert (status == 0 and (called or "--help" in words)) or "no such " in told, told
