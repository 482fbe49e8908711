"""Code blocks of the documentation: their language, their lines, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_NOT_RUN = re.compile(r"<!--\s*not run: (.+?)\s*-->\s*")
_QUOTED = re.compile(r"'[^']*'|\"(?:[^\"\\$`]|\\.)*\"")
_COMMENT = re.compile(r"('[^']*'|\"(?:[^\"\\]|\\.)*\")|(?:^|\s)#.*")
_SHELL_SYNTAX = re.compile(r"[|&;<>()$`*?\[\]{}~!]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
# What changes the shell itself, or goes on in the next line.
_STATE = re.compile(r"(for|while|until|if|then|else|fi|case|do|done|cd|export|set|source|declare|function)\b|.*<<")


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        page: Path of the page.
        line: Line of the page where the code begins, from 1.
        language: First word behind the fence; empty for none.
        code: Text of the block.
        not_run: Reason of the comment `<!-- not run: reason -->` before the block, or None.
    """

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a bash block: one line, or several that a backslash joins.

    Attributes:
        line: Line of the page where it begins.
        text: The command as on the page, in one line.
    """

    line: int
    text: str

    @property
    def bare(self) -> str:
        """The command without its comment."""
        return _COMMENT.sub(lambda match: match[1] or "", self.text).strip()

    @property
    def exit_status(self) -> int:
        """The status of a comment such as `# exit status 1`, else 0."""
        match = re.search(r"#.*\bexit status (\d+)", self.text)
        return int(match[1]) if match else 0

    @property
    def is_plain(self) -> bool:
        """Whether there is no shell syntax besides quotes and assignments of environment variables."""
        return not _SHELL_SYNTAX.search(_QUOTED.sub("", self.bare))

    @property
    def changes_shell(self) -> bool:
        """Whether later lines depend on it: a variable, another folder, a loop, text that follows."""
        words, _ = self.words
        return bool(_STATE.match(_QUOTED.sub("", self.bare))) or not words

    @property
    def words(self) -> tuple[list[str], dict[str, str]]:
        """The words up to the first pipe, redirection or the like, and the environment variables before them."""
        lexer = shlex.shlex(self.bare, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        words: list[str] = []
        for word in lexer:
            if word[0] in "|&;<>()":
                break
            words.append(word)
        environment: dict[str, str] = {}
        while words and _ASSIGNMENT.match(words[0]):
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        return words, environment

    @property
    def is_stedfm(self) -> bool:
        """Whether it calls this package."""
        return self.words[0][:1] == ["stedfm"]


def name_of(page: Path) -> str:
    """Path of a page below the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def read_blocks(page: Path) -> list[Block]:
    """Code blocks of a page in their order.

    Raises:
        ValueError: A comment `not run` has no reason or no block, or a block is indented instead of fenced.
    """
    blocks: list[Block] = []
    reason: str | None = None
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        place = f"{name_of(page)}:{token.map[0] + 1 if token.map else 0}"
        if reason is not None and token.type != "fence":
            raise ValueError(f"{place}: no code block follows the comment `not run: {reason}`")
        if token.type == "html_block" and re.match(r"<!--\s*not run", token.content):
            match = _NOT_RUN.fullmatch(token.content)
            if match is None:
                raise ValueError(f"{place}: write <!-- not run: REASON --> in a line before the code block")
            reason = match[1]
        elif token.type == "code_block":
            raise ValueError(f"{place}: the code is indented; put it between ```LANGUAGE and ```")
        elif token.type == "fence" and token.map is not None:
            language = token.info.split()[0] if token.info.strip() else ""
            blocks.append(Block(page, token.map[0] + 2, language, token.content, reason))
            reason = None
    return blocks


def read_commands(block: Block) -> Iterator[Command]:
    """Commands of a bash block."""
    begun, start = "", 0
    for number, text in enumerate(block.code.splitlines(), block.line):
        start = start if begun else number
        if text.endswith("\\") and not text.lstrip().startswith("#"):
            begun += text[:-1].rstrip() + " "
            continue
        command = Command(start, begun + (text.strip() if begun else text))
        begun = ""
        if command.bare:
            yield command
