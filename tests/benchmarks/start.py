"""`python -m tests.benchmarks.start`: measure how fast help and messages appear (`make bench-start`)."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.timing import machine, spread, table
from tests.cli.test_fast_start import MISTAKES
from tests.command_lines import commands


def cpu_seconds(words: list[str], cwd: Path) -> float:
    """Run Python with these words in a separate process and return its CPU time in seconds."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def cases() -> dict[str, list[str]]:
    """Command lines to measure, each after `stedfm`."""
    found = {" ".join([*command, "--help"]): [*command, "--help"] for command in [(), *commands()]}
    for words, _ in MISTAKES:
        line = words.format(image="image.npy")
        found[line] = line.split()
    return found


def result(seconds: Mapping[str, Sequence[float]]) -> str:
    """Sentence on the slowest help and the slowest message."""
    medians = {line: statistics.median(each) for line, each in seconds.items()}
    helps = max(value for line, value in medians.items() if line.endswith("--help"))
    messages = max(value for line, value in medians.items() if line[0] != "(" and not line.endswith("--help"))
    return f"Help takes at most {helps:.2f} s, a message at most {messages:.2f} s (medians)."


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repeats of every command")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/start.md"))
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("empty", "occupied"):
            (folder / name).mkdir()
        (folder / "occupied" / "thesis.txt").write_text("not ours")
        np.save(folder / "image.npy", np.zeros((8, 8), np.uint8))
        for number in range(arguments.rounds):
            seconds["(Python itself)"].append(cpu_seconds(["-c", "pass"], folder))
            for line, words in cases().items():
                seconds[line].append(cpu_seconds(["-m", "stedfm_hf.cli", *words], folder))
            print(f"round {number + 1}/{arguments.rounds}", file=sys.stderr, flush=True)
    rows = [[f"`stedfm {line}`" if line[0] != "(" else line, spread(each)] for line, each in seconds.items()]
    text = INTRODUCTION.format(machine=machine(), result=result(seconds)) + table(["", "CPU s"], rows) + "\n"
    print(text)
    arguments.output.write_text(text, encoding="utf-8")


INTRODUCTION = """# Start of commands

CPU time until a command has printed its help or a message about a mistake. {result}

Measured on {machine}, with `make bench-start`.

Each repeat runs a whole command in a separate process, imports included; the commands take turns. CPU time is user and
system time. The table shows the **median** and, in brackets, every repeat.

"""


if __name__ == "__main__":
    main()
