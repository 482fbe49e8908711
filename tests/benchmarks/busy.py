"""`python -m tests.benchmarks.busy`: measure `stedfm embed` idle and next to busy processes (`make bench-busy`)."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from tests.benchmarks.timing import machine, spread, table

BUSY_PROCESSES = 2
INPUTS = {"one": (1, 128), "small": (300, 128), "large": (3, 1024)}
"""Name of a folder to the number of its images and their size in pixels."""
SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spinning": {"GOMP_SPINCOUNT": "300000"},
}
LABELS = {
    "default": "nothing set (default)",
    "passive": "`OMP_WAIT_POLICY=passive`",
    "spinning": "`GOMP_SPINCOUNT=300000` (default of libgomp)",
}
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", "OMP_NUM_THREADS")


@dataclass
class Repeats:
    """Repeats of one command under one setting; those of different settings correspond.

    Attributes:
        seconds: Wall-clock time of each repeat.
        cpu_seconds: CPU time of each repeat, user and system.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


Measured = dict[tuple[str, str, str], Repeats]
"""Repeats by state of the machine, input and setting."""


def write_images(root: Path) -> None:
    """Write the folders of 16-bit TIFF files."""
    generator = np.random.default_rng(0)
    for name, (count, side) in INPUTS.items():
        (root / name).mkdir()
        for index in range(count):
            tifffile.imwrite(root / name / f"{index:03d}.tif", generator.poisson(20, (side, side)).astype(np.uint16))


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep this many other processes busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def embed(root: Path, name: str, setting: str) -> tuple[float, float]:
    """Run `stedfm embed` in a separate process and return its wall-clock and CPU time in seconds."""
    environment = {key: value for key, value in os.environ.items() if key not in WAITING} | SETTINGS[setting]
    words = ["embed", name, "--model", "demo", "--device", "cpu", "--output", "table.parquet", "--overwrite"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "stedfm_hf.cli", *words],
        cwd=root,
        env=environment | {"PYTHONPATH": os.getcwd()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"stedfm {' '.join(words)} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def measure(root: Path, number: int, measured: Measured) -> None:
    """Run every command once, in turn; the order of the settings rotates with the number of the round."""
    for state, processes in (("idle", 0), ("busy", BUSY_PROCESSES)):
        with busy(processes):
            for name in INPUTS:
                _one_turn(root, state, name, number, measured)


def _one_turn(root: Path, state: str, name: str, number: int, measured: Measured) -> None:
    settings = list(SETTINGS) if name != "one" else ["default"]
    for shift in range(len(settings)):
        setting = settings[(number + shift) % len(settings)]
        seconds, cpu_seconds = embed(root, name, setting)
        measured[state, name, setting].seconds.append(seconds)
        measured[state, name, setting].cpu_seconds.append(cpu_seconds)
        print(f"{state} {name} {setting}: {seconds:.1f} s, CPU {cpu_seconds:.1f} s", file=sys.stderr, flush=True)


def _ratios(values: list[float], others: list[float]) -> str:
    return spread([one / other for one, other in zip(values, others, strict=True)])


def section(measured: Measured, state: str, name: str) -> str:
    """Table of one state of the machine and one folder."""
    count, side = INPUTS[name]
    own = {setting: measured[state, name, setting] for setting in SETTINGS}
    rows = [
        [
            LABELS[setting],
            spread([count / seconds for seconds in repeats.seconds]),
            spread(repeats.cpu_seconds, 1),
            _ratios(own["passive"].seconds, repeats.seconds),
            _ratios(repeats.cpu_seconds, own["passive"].cpu_seconds),
            _ratios(own["spinning"].seconds, repeats.seconds),
        ]
        for setting, repeats in own.items()
    ]
    columns = ["", "images/s", "CPU s", "rate / passive", "CPU / passive", "rate / spinning"]
    return f"## {count} images of {side} x {side}, {state}\n\n" + table(columns, rows)


def page(measured: Measured) -> str:
    """Everything that was measured, as Markdown."""
    sections = [section(measured, state, name) for name in ("small", "large") for state in ("idle", "busy")]
    starts = {state: spread(measured[state, "one", "default"].seconds, 1) for state in ("idle", "busy")}
    introduction = INTRODUCTION.format(machine=machine(), result=result(measured))
    return "\n\n".join([introduction, *sections, METHOD.format(**starts)]) + "\n"


def result(measured: Measured) -> str:
    """Sentence on the folder of small images, busy."""
    own = {setting: measured["busy", "small", setting].seconds for setting in SETTINGS}
    default, spinning = (
        statistics.median(passive / seconds for passive, seconds in zip(own["passive"], own[setting], strict=True))
        for setting in ("default", "spinning")
    )
    return (
        f"With small images, the default reaches {default:.2f} times the rate of passive waiting, and the default of "
        f"libgomp {spinning:.2f} times."
    )


def main() -> None:
    """Measure, and write the page after every round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repeats of every command")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/busy-machine.md"))
    arguments = parser.parse_args()
    measured: Measured = defaultdict(Repeats)
    with tempfile.TemporaryDirectory() as place:
        write_images(Path(place))
        embed(Path(place), "small", "default")
        for number in range(arguments.rounds):
            measure(Path(place), number, measured)
            arguments.output.write_text(page(measured), encoding="utf-8")
            print(f"round {number + 1}/{arguments.rounds}", file=sys.stderr, flush=True)
    print(page(measured))


INTRODUCTION = """# Embedding on a busy machine

`stedfm embed` next to two busy processes, with three ways in which OpenMP threads wait for each other. {result}

Measured on {machine}, with `make bench-busy`."""
METHOD = """## How it was measured

Each repeat runs the whole command `stedfm embed FOLDER --model demo --device cpu` in a separate process, imports
included. The commands take turns, and ratios are formed within a round. *Busy* means next to two processes that never
wait. Tables show the **median** and, in brackets, every repeat. CPU time is user and system time of the command only.

| state | required of the default |
| --- | --- |
| busy | at least 0.9 of the rate and at most 1.2 of the CPU time of passive waiting |
| idle | at least 0.95 of the rate of spinning, which is the default of libgomp |

The command with a single image, which is mostly imports, takes {idle} s idle and {busy} s busy."""


if __name__ == "__main__":
    main()
