"""Run the blocks of a page, as a reader would who copies them one after the other."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from stedfm_hf.cli import main
from tests.docs.blocks import ROOT, Block, Command, name_of, read_commands
from tests.docs.shorter import shortened
from tests.docs.world import output_of

# Programs that change the machine or need others.
REFUSED = ("apt", "brew", "conda", "curl", "git", "hf", "make", "pip", "sbatch", "srun", "sudo", "uv", "wget")
# The page whose torchrun commands start the processes that they name.
SEVERAL_PROCESSES = "train-on-a-cluster.md"
# Longest output of a failed command that is shown.
_SHOWN = 4000


class SnippetError(AssertionError):
    """A command or some code of a page failed."""

    def __init__(self, page: Path, line: int, code: str, trouble: str, output: str) -> None:
        indented = "\n".join(f"    {each}" for each in code.strip().splitlines())
        super().__init__(f"{name_of(page)}:{line}: {trouble}\n{indented}\n{output[-_SHOWN:]}")


def run_blocks(blocks: Iterable[Block], parts: Collection[str] = ()) -> None:
    """Run the blocks of a page in the current folder.

    A bash block runs line by line: a line of `stedfm` and its words in this process, and so the script of `torchrun`,
    except on one page; any other line in bash. A block whose lines depend on each other (variables, loops, `cd`) is
    one script. YAML that begins with a comment such as `# mine.yaml` is written to that file.

    A part of the world is removed before a command makes it again.

    Args:
        blocks: Blocks of one page, in their order.
        parts: Names of the files and folders that were there before.

    Raises:
        SnippetError: Something failed; it names the page, the line and the output.
    """
    given = set(parts)
    # As in a script, `if __name__ == "__main__":` is true.
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.language == "python":
            _run_python(block, namespace)
        elif block.language == "yaml" and (match := re.match(r"# (\S+\.ya?ml)\n", block.code)):
            Path(match[1]).write_text(block.code, encoding="utf-8")
        elif block.language == "bash":
            commands = list(read_commands(block))
            if any(command.changes_shell for command in commands):
                _run_bash(block.page, block.line, block.code)
            else:
                for command in commands:
                    if (output := output_of(command.text)) in given:
                        given.remove(output)
                        _remove(Path(output))
                    _run_command(block.page, command)


def _run_python(block: Block, namespace: dict[str, Any]) -> None:
    output = StringIO()
    # Empty lines before it give tracebacks the lines of the page.
    code = "\n" * (block.line - 1) + block.code
    try:
        with redirect_stdout(output), redirect_stderr(output), shortened():
            exec(compile(code, str(block.page), "exec"), namespace)
    except Exception as error:
        lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == str(block.page)]
        told = "".join(traceback.format_exception(error))
        line = lines[-1] if lines and lines[-1] else block.line
        raise SnippetError(block.page, line, block.code, type(error).__name__, output.getvalue() + told) from None


def _run_command(page: Path, command: Command) -> None:
    words, environment = command.words
    programs: dict[str, Callable[[list[str]], int]] = {"stedfm": main, "torchrun": _run_script}
    program = programs.get(words[0])
    if program is None or not command.is_plain or (words[0] == "torchrun" and page.name == SEVERAL_PROCESSES):
        _run_bash(page, command.line, command.bare, command.exit_status)
        return
    output = StringIO()
    try:
        with patch.dict(os.environ, environment), redirect_stdout(output), redirect_stderr(output), shortened():
            status = program(words[1:])
    except Exception as error:
        told = output.getvalue() + traceback.format_exc()
        raise SnippetError(page, command.line, command.text, type(error).__name__, told) from None
    if status != command.exit_status:
        trouble = f"exit status {status} instead of {command.exit_status}"
        raise SnippetError(page, command.line, command.text, trouble, output.getvalue())


def _run_script(words: Sequence[str]) -> int:
    """Run the script of a torchrun command as one process, this one: two take half a minute to start."""
    (script,) = [number for number, word in enumerate(words) if word.endswith(".py")]
    with patch.object(sys, "argv", list(words[script:])):
        try:
            runpy.run_path(words[script], run_name="__main__")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _run_bash(page: Path, line: int, code: str, expected: int = 0) -> None:
    shims = Path(".shims")
    shims.mkdir(exist_ok=True)
    scripts = {name: f'exec "{sys.executable}" -m tests.docs.shorter {name} "$@"' for name in ("stedfm", "torchrun")}
    refusal = "does not run in a test; write <!-- not run: REASON --> before the block"
    scripts |= {name: f'echo "{name}: {refusal}"; exit 1' for name in REFUSED}
    for name, script in scripts.items():
        (shims / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (shims / name).chmod(0o755)
    places = [str(shims.resolve()), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(places), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    if ended.returncode != expected:
        trouble = f"exit status {ended.returncode} instead of {expected}"
        raise SnippetError(page, line, code, trouble, ended.stdout)
