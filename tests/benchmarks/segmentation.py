"""`python -m tests.benchmarks.segmentation`: decoders and whole fields (`make bench-segmentation`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.benchmarks.decoders import decoders
from tests.benchmarks.fields import fields, monai
from tests.benchmarks.large_field import large
from tests.benchmarks.timing import machine, write_page

INTRODUCTION = """# Whole fields

Segmentation of large images: speed and memory of the decoders, of blending compared with MONAI, and of
`stedfm segment`, on a CPU. Each section begins with its comparison.

Measured on {machine}, with `make bench-segmentation`."""
METHOD = """## How it was measured

In each table the cases take turns, because shared machines change their speed from minute to minute. Ratios are formed
within a round. Tables show the **median** and, in brackets, every round. Peak memory is that of a process that does
nothing else. Networks are untrained and images random, which changes neither speed nor memory."""


def main() -> None:
    """Measure the parts asked for and write the page."""
    parts = {"decoders": decoders, "fields": fields, "large": large}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of everything")
    parser.add_argument("--only", choices=parts, action="append", help="measure this part only, and write no page")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/fields.md"))
    arguments = parser.parse_args()
    chosen = arguments.only or list(parts)
    if "fields" in chosen:
        monai()  # Fails now rather than after the other parts.
    print(machine(), file=sys.stderr)
    pages = [parts[name](arguments.rounds) for name in chosen]
    text = "\n\n".join([INTRODUCTION.format(machine=machine()), *pages, METHOD]) + "\n"
    print(text)
    if not arguments.only:
        write_page(arguments.output, text)


if __name__ == "__main__":
    main()
