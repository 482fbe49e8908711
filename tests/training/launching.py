"""Scripts of the room `training`, started as people start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def launch(script: str, words: Sequence[str], *, processes: int = 2) -> str:
    """A training under torchrun; gives its progress lines and its answer."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    ended = subprocess.run(
        [*launcher, script, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stderr + ended.stdout


def kill_at(script: str, words: Sequence[str], line: str) -> None:
    """A training that is killed as soon as it prints a line that begins so."""
    with subprocess.Popen(
        [sys.executable, script, *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    ) as process:
        assert process.stderr is not None
        for said in process.stderr:
            if said.startswith(line):
                break
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def statuses_without_torch(lines: Sequence[str]) -> tuple[list[int], str, str]:
    """Run commands in one new interpreter, which must import no large library for them.

    Returns:
        Exit status of each command, all errors, and all that was printed.
    """
    code = (
        "import sys; from stedfm_hf.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    status = main(line.split())\n"
        "    print('ended', status, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True, timeout=60)
    found = [line.split(maxsplit=2)[1:] for line in ended.stdout.splitlines() if line.startswith("ended")]
    assert len(found) == len(lines) and all(imported == "[]" for _, imported in found), (found, ended.stderr)
    return [int(status) for status, _ in found], ended.stderr, ended.stdout
