"""`python -m tests.benchmarks.bench_pretraining`: a pretraining's data, step and both; writes its page in docs/.

On a GPU, the same command measures the GPU. On several GPUs, with an existing data set:
`torchrun --nproc_per_node 8 -m tests.benchmarks.bench_pretraining --dataset my-crops --batches 128`.
The measurements are also written next to the page as JSON; docs/benchmarks/scaling.md reads the rates of GPUs there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from stedfm_hf.data.repository.files import find_split
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training.batches import EndlessBatches, MixedSplit
from stedfm_hf.training.preparation import Preparation
from tests.benchmarks.counting import step_operations
from tests.benchmarks.data import write_repository
from tests.benchmarks.timing import machine, matmul, own_peak, peak_memory, spread, table, take_turns, write_page

CROPS = 8192
CPU_BATCHES = {"64-p8": (64, 256), "small": (32,)}
GPU_BATCHES = {
    "64-p8": (256, 1024),
    "tiny": (256, 1024),
    "small": (256, 1024),
    "base": (256, 1024),
    "large": (64, 256),
}
PRECISIONS = ("float32", "bfloat16")
THREADS = 2
"""That read, where nothing else is said."""
NARROW = {"decoder_hidden_size": 128, "decoder_num_attention_heads": 4, "decoder_intermediate_size": 512}
WORLD = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))


@dataclass(frozen=True)
class Case:
    """What a row measures.

    Attributes:
        model: name of a recipe; `64-p8` has the narrow decoder of its recipe.
        batch: crops of a process in a step.
        precision: "float32" or "bfloat16" (autocast).
        compiled: whether the network is compiled.
        threads: that read; 0 reads when a batch is asked for.
    """

    model: str
    batch: int
    precision: str
    compiled: bool = False
    threads: int = THREADS


def device() -> torch.device:
    """The GPU of this process if there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def device_name() -> str:
    """What a reader knows it by."""
    return torch.cuda.get_device_name(device()) if torch.cuda.is_available() else "CPU"


class Training:
    """A network in training, fed by the stream or by one batch that is already there.

    Args:
        case: what is measured.
        repo: the data set.
    """

    def __init__(self, case: Case, repo: Path) -> None:
        torch.manual_seed(0)
        self.case = case
        narrow: dict[str, Any] = NARROW if case.model == "64-p8" else {}
        self.config = StedFmConfig(**ARCHITECTURES[f"stedfm-vit-{case.model}"], **narrow)
        self.model: Any = StedFmForPreTraining(self.config).train().to(device())
        self.call: Any = torch.compile(self.model, fullgraph=True) if case.compiled else self.model
        if WORLD > 1:
            self.call = DistributedDataParallel(self.call)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
        size, patch = self.config.image_size, self.config.patch_size
        self.prepare = Preparation(0, image_size=size, patches=(size // patch) ** 2)
        source = MixedSplit(find_split(str(repo), "train"), case.batch)
        batches = EndlessBatches([source], seed=0, rank=RANK, world_size=WORLD, threads=case.threads)
        self.batches: Iterator[Any] = iter(batches)
        self.waited = self.took = 0.0
        self.ready = self.next_input()

    def next_input(self) -> dict[str, torch.Tensor]:
        """The next batch of the stream, on the device and prepared; the time waited for it is kept."""
        began = time.perf_counter()
        (part,) = next(self.batches)["parts"]
        self.waited += time.perf_counter() - began
        moved = {k: v.to(device(), non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in part.items()}
        return self.prepare(moved, epoch=part["epoch"])

    def step(self, ready: dict[str, torch.Tensor]) -> None:
        """Forward, backward, clipping, AdamW."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device().type, torch.bfloat16, enabled=self.case.precision == "bfloat16"):
            loss = self.call(**ready).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def run(self, steps: int, kind: str) -> None:
        """Some steps: `data` only, `step` on a batch that is there, or `whole`."""
        self.waited = 0.0
        began = time.perf_counter()
        for _ in range(steps):
            ready = self.ready if kind == "step" else self.next_input()
            if kind != "data":
                self.step(ready)
        if device().type == "cuda":
            torch.cuda.synchronize()
        if WORLD > 1:
            distributed.barrier()
        self.took = time.perf_counter() - began


def cases(arguments: argparse.Namespace) -> list[Case]:
    """Every batch size and precision; then compiled, and with other numbers of threads, at the largest batch."""
    usual = GPU_BATCHES if device().type == "cuda" else CPU_BATCHES
    found = []
    for model in arguments.models or usual:
        batches = arguments.batches or usual.get(model) or (32,)
        found += [Case(model, batch, precision) for batch in batches for precision in arguments.precisions]
        if arguments.compile:
            found += [Case(model, batches[-1], precision, compiled=True) for precision in arguments.precisions]
        others = [count for count in arguments.threads if count != THREADS]
        found += [Case(model, batches[-1], arguments.precisions[-1], threads=count) for count in others]
    return found


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every case data only, step only and whole, in turn; one record a case."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        repo = arguments.dataset or Path(place) / "repo"
        if arguments.dataset is None:
            write_repository(repo, CROPS)
        for case in cases(arguments):
            try:
                record = _measure(case, repo, arguments.rounds, arguments.seconds)
            except torch.OutOfMemoryError:
                record = {}
                torch.cuda.empty_cache()
            kind = {"device": device_name(), "kind": device().type, "devices": WORLD}
            rows.append(dataclasses.asdict(case) | kind | record)
            print(" | ".join(_cells(rows[-1])), file=sys.stderr, flush=True)
    return rows


def _measure(case: Case, repo: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Images/s of all processes together."""
    training = Training(case, repo)
    training.run(2, "whole")
    training.run(2, "step")
    steps = _agreed(max(3, round(seconds * 2 / max(training.took, 1e-3))))
    waiting: list[float] = []

    def kind(name: str) -> Callable[[], object]:
        def call() -> None:
            training.run(steps, name)
            if name == "whole":
                waiting.append(training.waited / training.took)

        return call

    work = float(steps * case.batch * WORLD)
    product, operations = _product(getattr(torch, case.precision))
    rates = take_turns(
        {**{name: (kind(name), work) for name in ("data", "step", "whole")}, "matmul": (product, operations)}, rounds
    )
    return {
        **{name: rates.values[name] for name in ("data", "step", "whole")},
        "whole_of_step": rates.ratios("whole", "step"),
        "waiting": waiting[-rounds:],
        "of_matmul": rates.ratios("step", "matmul", step_operations(training.config) / WORLD),
        "peak_mb": _peak(case, repo),
    }


def _agreed(steps: int) -> int:
    """The number of steps of the first process: all must take as many."""
    numbers = [steps]
    if WORLD > 1:
        distributed.broadcast_object_list(numbers)
    return numbers[0]


def _product(dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """The matrix product of the device."""
    if device().type == "cpu":
        return matmul(dtype)
    size, times = 8192, 10
    a, b = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))

    def call() -> None:
        for _ in range(times):
            torch.mm(a, b)
        torch.cuda.synchronize()

    return call, times * 2.0 * size**3


def _peak(case: Case, repo: Path) -> float:
    if WORLD > 1:
        return _own_peak()
    return peak_memory(
        "tests.benchmarks.bench_pretraining", "--peak", json.dumps(dataclasses.asdict(case)), "--dataset", str(repo)
    )


def _own_peak() -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else own_peak()


HEAD = "model batch precision compiled threads".split()
HEAD += ["data only", "step only", "whole", "whole / step", "waiting", "of matmul", "peak MB"]


def _cells(row: dict[str, Any]) -> list[str]:
    case = [row["model"], str(row["batch"]), row["precision"], "yes" if row["compiled"] else "no", str(row["threads"])]
    if "step" not in row:
        return [*case, "out of memory", *[""] * (len(HEAD) - len(case) - 1)]
    return [
        *case,
        *(spread(row[name], 0 if statistics.median(row["whole"]) > 100 else 1) for name in ("data", "step", "whole")),
        spread(row["whole_of_step"]),
        f"{spread([100 * share for share in row['waiting']], 1)} %",
        spread(row["of_matmul"]),
        f"{row['peak_mb']:.0f}",
    ]


def page(rows: list[dict[str, Any]], crops: str) -> str:
    """The page about what was measured."""
    processes = "one process" if WORLD == 1 else f"{WORLD} processes together"
    text = f"Images/s of {processes} on {device_name()}, with {crops}."
    waiting = [100 * statistics.median(row["waiting"]) for row in rows if row["threads"] and "step" in row]
    result = (
        f"With reader threads, the step waits for data at most {max(waiting, default=0):.1f} % of the time (medians)."
    )
    introduction = INTRODUCTION.format(machine=machine(), result=result)
    return "\n\n".join([introduction, text, table(HEAD, [_cells(row) for row in rows]), METHOD])


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="about as long as every measurement takes")
    parser.add_argument("--models", nargs="+", choices=GPU_BATCHES, help="recipes; by default what the device can")
    parser.add_argument("--batches", nargs="+", type=int, help="crops of a process in a step, the largest last")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--threads", nargs="+", type=int, default=[0, 1, THREADS], help="reader threads to compare")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="compiled rows as well")
    parser.add_argument("--dataset", type=Path, help="a data set that is there, in the place of simulated crops")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/pretraining.md"))
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if WORLD > 1 and arguments.dataset is None:
        parser.error("several processes share a data set: give --dataset")
    return arguments


def main() -> None:
    """Measure, and write the page and the JSON next to it."""
    arguments = parse()
    if arguments.peak:
        Training(Case(**json.loads(arguments.peak)), arguments.dataset).run(4, "whole")
        print(_own_peak())
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    if WORLD > 1:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rows = measure(arguments)
    crops = f"{CROPS} simulated crops of 224 x 224, 8 bit"
    if arguments.dataset is not None:
        crops = f"{find_split(str(arguments.dataset), 'train').rows} crops of your data set"
    if RANK == 0:
        text = page(rows, crops) + "\n"
        print(text)
        write_page(arguments.output, text)
        record = json.dumps({"machine": machine(), "rows": rows}, indent=1)
        arguments.output.with_suffix(".json").write_text(record + "\n", encoding="utf-8")
    if WORLD > 1:
        distributed.destroy_process_group()


INTRODUCTION = """# Pretraining

Data loading and training step of a pretraining, each alone and together. {result}

Measured on {machine}, with `python -m tests.benchmarks.bench_pretraining`. GPUs were not measured unless a table
names one; the same command measures them."""
METHOD = """## Columns

| column | meaning |
| --- | --- |
| threads | threads that read ahead; 0 reads when a batch is requested |
| data only | images/s of reading, scaling, cropping, augmentation and masks, without a step |
| step only | images/s of the step, with its batch in memory |
| whole | images/s of both |
| waiting | fraction of the whole run in which the step waited for a batch |
| of matmul | rate of the matrix products of the step (attention included), as a fraction of a plain matrix product |

The cases of a row take turns, and ratios are formed within a round. Cells show the **median** and, in brackets, every
round."""


if __name__ == "__main__":
    main()
