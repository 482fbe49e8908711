"""Fair timing on a shared machine: the things compared take turns, and ratios are formed inside a round."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import transformers

MATMUL = (4096, 4096, 2048)
NOTES = "\n## Notes\n"
"""Title of the last section of a page, which is written by hand."""
FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)


@dataclass(frozen=True)
class Rates:
    """Measured rates of several cases, round by round.

    Attributes:
        values: Case to one rate per round; rounds correspond.
    """

    values: dict[str, list[float]]

    def median(self, case: str) -> float:
        """Median rate of a case."""
        return statistics.median(self.values[case])

    def ratios(self, case: str, base: str, factor: float = 1.0) -> list[float]:
        """Ratio of two cases in every round, times `factor`."""
        return [factor * a / b for a, b in zip(self.values[case], self.values[base], strict=True)]


def take_turns(cases: dict[str, tuple[Callable[[], object], float]], rounds: int, warmup: int = 1) -> Rates:
    """Run every case once per round, in turn.

    Args:
        cases: Name to the call and the amount of work it does (images, operations).
        rounds: Counted rounds.
        warmup: Rounds before them.

    Returns:
        Work per second.
    """
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-warmup, rounds):
        for name, (call, work) in cases.items():
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            if number >= 0:
                rates[name].append(work / seconds)
        print(f"round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    return Rates(rates)


def matmul(dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A plain matrix product, as a case: what the machine gives at best, in operations."""
    m, k, n = MATMUL
    a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    return lambda: torch.mm(a, b), 2.0 * m * k * n


def peak_memory(module: str, *arguments: str) -> float:
    """Run `python -m module arguments` in a process of its own and return its peak resident memory in MB."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with {process.returncode}")
    return float(printed.split()[-1])


def own_peak() -> float:
    """Peak resident memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux it begins with what the parent process held at the start.
        return next(float(line.split()[1]) / 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def machine() -> str:
    """One line on the machine and the versions."""
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {name}, {torch.get_num_threads()} of {os.cpu_count()} cores used by torch; "
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"NumPy {np.__version__}"
    )


def instruction_sets() -> str:
    """The instruction sets of the CPU that matter for matrix products."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return "unknown"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(("flags", "Features"))]
    known = set(lines[0].split(":", 1)[1].split()) if lines else set()
    return " ".join(flag for flag in FLAGS if flag in known) or "none of those that are listed"


def write_page(path: Path, text: str) -> None:
    """Write a page, and keep the notes at the end of the page that is there, which no benchmark measures."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    _, title, notes = old.partition(NOTES)
    path.write_text(text.rstrip("\n") + "\n" + title + notes, encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: list[float], digits: int = 2) -> str:
    """Median, then every value."""
    each = " ".join(f"{value:.{digits}f}" for value in values)
    return f"**{statistics.median(values):.{digits}f}** ({each})"
