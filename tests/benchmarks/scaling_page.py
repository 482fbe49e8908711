"""The text of docs/benchmarks/scaling.md, computed from the counts and measurements of `tests.benchmarks.scaling`."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.counting import GRADIENT_BYTES, all_reduce_bytes
from tests.benchmarks.timing import spread, table

CROPS = 1_000_000
DAY = 86400.0
GPUS = (1, 8, 64)
H100_TFLOPS, V100_TFLOPS = 989.0, 15.7
"""Data sheets of NVIDIA: H100 SXM, bfloat16, dense; V100 SXM2, float32."""
AIMS = (0.2, 0.3)
PUBLISHED = {"small": 4, "large": 16}
"""Number of V100 GPUs with which the reference took a day, as published."""
GROUP = 16
"""Crops of a row group, which is read at once."""
NOT_MEASURED = "not measured: no GPU was available"

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """What is counted of a network, and how often its step is taken."""

    name: str
    parameters: int
    counted: int
    derived: int
    epochs: int
    effective_batch_size: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run; what fills no effective batch is left out of an epoch."""
        return CROPS // self.effective_batch_size * self.epochs

    @property
    def crops(self) -> int:
        """Crops seen in the whole run."""
        return self.steps * self.effective_batch_size

    def needed(self, gpus: int) -> float:
        """TFLOP/s that each of several GPUs needs to finish in a day."""
        return self.crops / DAY / gpus * self.counted / 1e12

    def at(self, aim: float) -> float:
        """Images/s of a GPU that reaches this fraction of the data sheet of an H100."""
        return aim * H100_TFLOPS * 1e12 / self.counted


def render(found: Row, gpus: list[Row]) -> str:
    """The page.

    Args:
        found: the JSON of `tests.benchmarks.scaling`.
        gpus: rows that `tests.benchmarks.bench_pretraining` measured; those of CPUs do not count.
    """
    sizes = [Size(name, **values) for name, values in found["sizes"].items()]
    parts = [
        introduction(found, sizes),
        operations(sizes),
        on_cpu(found, sizes),
        in_a_day(sizes),
        of_the_reference(sizes),
        on_gpus(sizes, gpus),
        targets(sizes),
        network(sizes),
        storage(found["storage"], sizes),
    ]
    return "\n\n".join(parts) + "\n"


def introduction(found: Row, sizes: list[Size]) -> str:
    """What is compared, where it was measured, and how the tables are marked."""
    size, small = sizes[0], next(each for each in sizes if each.name == "small")
    return f"""# Cost at scale

Operations, memory, network and storage of a large pretraining: {CROPS:,} crops x {size.epochs:,} epochs with the
recipes `tiny`, `small`, `base` and `large`. That is {size.steps:,} steps of {size.effective_batch_size:,} crops,
{size.crops:,}
crops in all. To finish `{small.name}` in 24 hours, each of 8 GPUs must reach {small.needed(8):.1f} TFLOP/s.

Measured on {found["machine"]}, with
`python -m tests.benchmarks.scaling`.

Every table is **counted**, **measured**, or **arithmetic** on such numbers. No number of a GPU on this page was
measured unless its row names the GPU. During the measurements, other programs kept {found["other_cores"]:.1f} of the
{found["cores"]} cores busy on average, so the timings are noisy. Cells show the **median** and, in brackets,
all rounds."""


def operations(sizes: list[Size]) -> str:
    """Counted: operations and parameters."""
    rows = [
        [
            size.name,
            f"{size.parameters / 1e6:.2f}",
            f"{GRADIENT_BYTES * size.parameters / 1e6:.1f}",
            f"{size.counted / 1e9:.3f}",
            f"{size.derived / 1e9:.3f}",
            f"{size.counted * size.crops / 1e18:.1f}",
        ]
        for size in sizes
    ]
    head = ["size", "parameters, M", "gradients, MB", "GFLOP per crop", "by the formula", "EFLOP per run"]
    return f"""## Operations of a step (counted)

Matrix products of the forward and backward pass on one crop of 224 x 224 with 75 % of its patches hidden.
`torch.utils.flop_counter` counts them on the network of the recipe; a multiplication and an addition are two. `by the
formula` is computed from the sizes alone (`tests/benchmarks/counting.py`). Elementwise operations and the optimiser
are not counted.

{table(head, rows)}"""


def on_cpu(found: Row, sizes: list[Size]) -> str:
    """Measured: the rate of a core, and what the run would take with it."""
    known = {size.name: size for size in sizes}
    rows = []
    for row in found["cpu"]:
        size, rate = known[row["size"]], statistics.median(row["images_per_core_s"])
        hours = (size.crops / rate + size.steps * statistics.median(row["update_core_s"])) / 3600
        rows.append(
            [
                row["size"],
                row["precision"],
                str(row["batch"]),
                spread(row["images_per_core_s"], 2),
                spread(row["images_per_s"], 2),
                spread(row["of_matmul"]),
                spread(row["update_core_s"], 3),
                f"{hours:,.0f}",
                f"{hours / 8766:,.1f}",
            ]
        )
    threads = "one thread" if found["threads"] == 1 else f"{found['threads']} threads"
    head = ["size", "precision", "crops at a time", "images/s of a core", "images/s by the clock", "of matmul"]
    head += ["s per update", "hours", "years"]
    return f"""## On a CPU (measured; hours are arithmetic)

{threads.capitalize()} of this machine, inputs in memory, forward and backward pass. bfloat16 is autocast.

| column | meaning |
| --- | --- |
| images/s of a core | by processor time, as if no other program were running |
| images/s by the clock | what remained next to the other programs |
| of matmul | fraction of a matrix product of the same precision in the same round, by processor time |
| s per update | clipping and AdamW, once in {sizes[0].effective_batch_size:,} crops, by processor time |
| hours | all crops and all updates on one such core, at the medians |

{table(head, rows)}"""


def in_a_day(sizes: list[Size]) -> str:
    """Arithmetic: what a day asks of every GPU."""
    rows = []
    for size in sizes:
        for count in GPUS:
            rate, needed = size.crops / DAY / count, size.needed(count)
            rows.append(
                [
                    size.name,
                    str(count),
                    f"{rate:,.0f}",
                    number(needed),
                    f"{100 * needed / H100_TFLOPS:.1f} %",
                    f"{size.effective_batch_size // count}",
                    f"{1000 * DAY / size.steps:.1f}",
                ]
            )
    head = ["size", "GPUs", "images/s each", "TFLOP/s each", "of 989 TFLOP/s", "crops per GPU and step", "ms per step"]
    return f"""## What 24 hours would need (arithmetic)

Rates of each GPU that finish the run in a day. Compare `TFLOP/s each` with the bfloat16 rate in the data sheet of your
GPU. The next column is the fraction of {H100_TFLOPS:.0f} TFLOP/s (data sheet of an H100 SXM, bfloat16, dense).

{table(head, rows)}"""


def of_the_reference(sizes: list[Size]) -> str:
    """Arithmetic on what the reference publishes."""
    rows, needs = [], []
    for size in sizes:
        if size.name in PUBLISHED:
            count = PUBLISHED[size.name]
            rate = CROPS * size.epochs / DAY / count
            needs.append(rate * size.counted / 1e12)
            ratio = f"{needs[-1] / V100_TFLOPS:.1f}"
            rows.append([size.name, f"{count} V100", "24", f"{24 * count}", f"{rate:,.0f}", number(needs[-1]), ratio])
    head = ["size", "GPUs", "hours", "GPU-hours", "images/s each", "TFLOP/s each", "x data sheet, float32"]
    text = f"""## What the reference's 24 hours mean (arithmetic on published figures)

Published: "nearly one million" crops, 1000 epochs, about 24 h on 4 V100 for `small` and on 16 for `large`. With one
million, and with the operations counted above (the network of the reference also computes tokens that are not used),
that is:

{table(head, rows)}"""
    if needs and min(needs) > V100_TFLOPS:
        text += f"""

The code of the reference computes in float32, for which the data sheet of a V100 (SXM2) states {V100_TFLOPS} TFLOP/s.
All rows are above it, so a million crops, 1000 epochs, 24 h and float32 cannot all be true of one run. Which one is
not true was not published. Use the 24 h as an order of magnitude, not as a rate to compare with."""
    return text


def on_gpus(sizes: list[Size], gpus: list[Row]) -> str:
    """Measured, where it was."""
    rows = [cells for size in sizes for count in GPUS for cells in _gpu_rows(size, count, gpus)]
    head = ["size", "GPUs", "GPU", "images/s", "of perfect scaling", "hours", "GPU-hours"]
    if all(NOT_MEASURED in cells for cells in rows):
        result = f"All sizes and numbers of GPUs: {NOT_MEASURED}."
    else:
        result = table(head, rows)
    return f"""## On GPUs (measured, end to end)

To measure: run `python -m tests.benchmarks.bench_pretraining` on a machine with GPUs (see its help), then
`python -m tests.benchmarks.scaling --render --measured FILE.json`. The table shows the fastest row of each size whose
batch times GPUs does not exceed the effective batch. Where only one GPU was measured, several get its rate times their
number: an upper bound of the rate and a lower bound of the hours. Such rows are marked.

{result}"""


def _gpu_rows(size: Size, count: int, gpus: list[Row]) -> list[list[str]]:
    mine = [row for row in gpus if row["kind"] == "cuda" and row["model"] == size.name and "whole" in row]
    mine = [row for row in mine if row["batch"] * row["devices"] <= size.effective_batch_size]
    found = []
    for name in dict.fromkeys(row["device"] for row in mine):
        each = [row for row in mine if row["device"] == name]
        one, some = _fastest(each, 1), _fastest(each, count)
        if some is None and one is None:
            continue
        if some is not None:
            rate, shown = statistics.median(some["whole"]), spread(some["whole"], 0)
            scaling = "–" if one is None else f"{100 * rate / count / statistics.median(one['whole']):.0f} %"
        else:
            rate = count * statistics.median(one["whole"]) if one is not None else 0.0
            shown, scaling = f"{rate:,.0f}", "not measured: at perfect scaling, an upper bound"
        hours = size.crops / rate / 3600
        setting = some or one or {}
        how = f"{name}, {setting['batch']} x {setting['precision']}{', compiled' if setting['compiled'] else ''}"
        found.append([size.name, str(count), how, shown, scaling, number(hours), number(hours * count)])
    return found or [[size.name, str(count), NOT_MEASURED, "–", "–", "–", "–"]]


def _fastest(rows: list[Row], devices: int) -> Row | None:
    fitting = [row for row in rows if row["devices"] == devices]
    return max(fitting, key=lambda row: statistics.median(row["whole"]), default=None)


def targets(sizes: list[Size]) -> str:
    """Arithmetic: what reaching the aims would mean."""
    rows = []
    for size in sizes:
        for aim in AIMS:
            hours = size.crops / size.at(aim) / 3600
            each = [number(hours / count) for count in GPUS]
            rows.append([size.name, f"{100 * aim:.0f} %", f"{size.at(aim):,.0f}", *each, number(hours)])
    head = ["size", "aim", "images/s each", *(f"hours on {count}" for count in GPUS), "GPU-hours"]
    return f"""## Targets, not results (arithmetic)

**Nothing here was measured.** If a GPU reached 20 % or 30 % of {H100_TFLOPS:.0f} TFLOP/s (data sheet of an H100
SXM, bfloat16, dense), and several of them scaled perfectly:

{table(head, rows)}

On 64 GPUs each gets only {sizes[0].effective_batch_size // 64} crops per step. With the small networks that is too
little work to reach such a fraction: use a larger effective batch or fewer GPUs there."""


def network(sizes: list[Size]) -> str:
    """Arithmetic: the sum of the gradients."""
    rows = []
    for size in sizes:
        for count in GPUS[1:]:
            sent = all_reduce_bytes(size.parameters, count)
            rates = [size.steps / DAY, *(count * size.at(aim) / size.effective_batch_size for aim in AIMS)]
            each = [f"{number(sent * rate / 1e9)} ({number(1000 / rate)})" for rate in rates]
            rows.append([size.name, str(count), number(sent / 1e6), *each])
    head = [
        "size",
        "GPUs",
        "MB per step and GPU",
        "for 24 h",
        *(f"at the target of {100 * aim:.0f} %" for aim in AIMS),
    ]
    return f"""## Network (arithmetic)

The gradients ({GRADIENT_BYTES} bytes per parameter) are summed once per step of
{sizes[0].effective_batch_size:,} crops. In a ring of n GPUs each sends, and receives, 2 (n - 1) / n times their
bytes. Cells show the GB/s of each GPU in each
direction, averaged over the step, and in brackets the ms of a step. To overlap with the backward pass alone (two
thirds of a step), 1.5 times as much is needed; latency is added. Plain data-parallel training sends nothing else
over the
network, except the data if they are remote.

{table(head, rows)}"""


def storage(found: Row, sizes: list[Size]) -> str:
    """Measured bytes and reading; arithmetic on them."""
    names = {"8bit": "8 bit", "raw": "16 bit"}
    stored = [
        [
            row["source"],
            f"{names[row['pixels']]} ({row['dtype']})",
            f"{row['rows']:,}",
            *(f"{row[key] / 1000:.1f}" for key in ("stored", "read", "uncompressed")),
        ]
        for row in found["crops"]
    ]
    most = {key: max(row["read"] for row in found["crops"] if row["pixels"] == key) for key in names}
    whole = {key: most[key] * CROPS / 1e9 for key in names}
    reading = [
        [names[row["pixels"]], label, spread(row["crops_per_s"][key], 0), spread(megabytes, 0)]
        for row in found["reading"]
        for key, label in READERS.items()
        for per_crop in [next(c for c in found["crops"] if c["pixels"] == row["pixels"])]
        for megabytes in [[rate * per_crop["read"] / 1e6 for rate in row["crops_per_s"][key]]]
    ]
    rates = [("all, 24 h", "any", [sizes[0].crops / DAY])]
    rates += [(size.name, str(count), [count * size.at(aim) for aim in AIMS]) for size in sizes for count in GPUS]
    needed = [
        [
            name,
            count,
            both(each, 1.0, 0),
            both(each, most["8bit"] / 1e9),
            both(each, most["raw"] / 1e9),
            both(each, 1 / GROUP, 0),
            "–" if count == "any" else both(each, found["crops"][0]["uncompressed"] / 1e9 / int(count)),
        ]
        for name, count, each in rates
    ]
    heads = [
        ["images", "pixels", "crops", "kB on disk", "kB read", "kB uncompressed"],
        ["pixels", "how", "crops/s", "MB/s"],
        ["size", "GPUs", "crops/s of all", "8 bit, GB/s", "16 bit, GB/s", "reads/s", "to each GPU, 8 bit, GB/s"],
    ]
    return f"""## Storage (bytes and reading measured, the need arithmetic)

Size of a crop of 224 x 224 as `stedfm data build` stores it (`--pixels 8bit`, and `raw` for 16 bit). `on disk` is the
size of the files divided by the crops, `read` is what the stream reads, and `uncompressed` is what goes to the GPU.
Simulated images have few photons and compress well; the largest of the measured sizes are used below.

{table(heads[0], stored)}

A million crops take {whole["8bit"]:.0f} GB in 8 bit and {whole["raw"]:.0f} GB in 16 bit. A node with that much free
memory reads them from the disk once, and from its cache in all other epochs.

Reading the simulated crops, one request after the other in one thread. The cache of the system is emptied before every
round, but the host of this virtual machine may still cache them. The last row is `stream(workers=2)`, which also
decompresses:

{table(heads[1], reading)}

What the storage must deliver to all GPUs: to finish in a day, and at the two targets above (20 % / 30 %; **not**
results). A read is a row group of {GROUP} crops. Ranks read some row groups twice,
[a few percent](data.md#what-a-rank-reads). In 16 bit twice as much goes to a GPU.

{table(heads[2], needed)}"""


READERS = {
    "front to back": "whole files front to back, 1 MiB at a time",
    "row groups": f"row groups of {GROUP} crops in random order",
    "single crops": "pieces of the size of one crop in random order, like one file per crop",
    "stream": "the stream, decompressed, in batches of 256",
}


def both(rates: list[float], factor: float, digits: int | None = None) -> str:
    """A number for every aim."""
    return " / ".join(f"{rate * factor:,.0f}" if digits == 0 else number(rate * factor) for rate in rates)


def number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
