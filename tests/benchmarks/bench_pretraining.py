"""`python -m tests.benchmarks.bench_pretraining`: a pretraining's data, step and both; writes its page in docs/.

On a GPU the same command measures that: nothing here is of CPUs, but the sizes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stedfm_hf.data.repository.files import find_split
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training.batches import EndlessBatches, Source
from stedfm_hf.training.preparation import Preparation
from tests.benchmarks.data import write_repository
from tests.benchmarks.timing import machine, matmul, own_peak, peak_memory, spread, table, take_turns

CROPS = 8192
MODELS = {"stedfm-vit-64-p8": (64, 256), "stedfm-vit-small": (32,)}
"""Batch sizes on a CPU; on a GPU they are those of `GPU_BATCHES`."""
GPU_BATCHES = (256, 1024)
NARROW = {"decoder_hidden_size": 128, "decoder_num_attention_heads": 4, "decoder_intermediate_size": 512}


def device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Training:
    """A network in training, fed by the stream or by one batch that is already there.

    Args:
        architecture: of the network; `64-p8` with the narrow decoder of its recipe.
        batch_size: crops of a step.
        half: whether it computes in bfloat16.
        compiled: whether the network is compiled.
        repo: the data set.
        threads: that read.
    """

    def __init__(
        self, architecture: str, batch_size: int, *, half: bool, compiled: bool, repo: Path, threads: int = 2
    ) -> None:
        torch.manual_seed(0)
        narrow: dict[str, Any] = NARROW if architecture == "stedfm-vit-64-p8" else {}
        self.config = StedFmConfig(**ARCHITECTURES[architecture], **narrow)
        self.model: Any = StedFmForPreTraining(self.config).train().to(device())
        self.call = torch.compile(self.model, fullgraph=True) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
        self.half, self.batch_size = half, batch_size
        size, patch = self.config.image_size, self.config.patch_size
        self.prepare = Preparation(0, image_size=size, patches=(size // patch) ** 2)
        batches = EndlessBatches([Source(find_split(str(repo), "train"), batch_size)], seed=0, threads=threads)
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
        with torch.autocast(device().type, torch.bfloat16, enabled=self.half):
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
        self.took = time.perf_counter() - began

    def flops(self) -> float:
        """Floating-point operations of a step on one image: three times those of the forward pass."""
        one = {name: values[:1] for name, values in self.ready.items()}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.model(**one)
        return 3.0 * counter.get_total_flops()


def cases() -> list[tuple[str, int, bool, bool]]:
    """What is measured: architecture, batch size, bfloat16, compiled."""
    on_gpu = device().type == "cuda"
    found = []
    for architecture, sizes in MODELS.items():
        for size in GPU_BATCHES if on_gpu else sizes:
            found += [(architecture, size, half, False) for half in (False, True)]
        if on_gpu:
            found.append((architecture, GPU_BATCHES[-1], True, True))
    return found


def measure(rounds: int, seconds: float) -> str:
    """The table: every case data only, step only and whole, in turn."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        repo = Path(place) / "repo"
        write_repository(repo, CROPS)
        for case in cases():
            rows.append(_row(case, repo, rounds, seconds))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["model", "batch", "precision", "data only", "step only", "whole", "whole / step", "waiting", "of matmul"]
    return (
        f"Images/s of one process on {_name()}, {CROPS} simulated crops of 224 x 224, 8 bit, read from disk by two "
        "threads, scaled, cropped, turned and masked. `data only` takes that and no step; `step only` has its batch "
        "in memory; `waiting` is the share of the whole run in which the step waited for a batch; `of matmul` is the "
        "rate of the step beside a matrix product of its precision in the same round.\n\n"
        + table([*head, "peak MB"], rows)
    )


def _row(case: tuple[str, int, bool, bool], repo: Path, rounds: int, seconds: float) -> list[str]:
    architecture, size, half, compiled = case
    training = Training(architecture, size, half=half, compiled=compiled, repo=repo)
    training.run(2, "whole")
    training.run(2, "step")
    steps = max(3, round(seconds * 2 / max(training.took, 1e-3)))
    waiting: list[float] = []

    def kind(name: str) -> Callable[[], object]:
        def call() -> None:
            training.run(steps, name)
            if name == "whole":
                waiting.append(100 * training.waited / training.took)

        return call

    work = float(steps * size)
    product, operations = matmul(torch.bfloat16 if half else torch.float32)
    rates = take_turns(
        {**{name: (kind(name), work) for name in ("data", "step", "whole")}, "matmul": (product, operations)}, rounds
    )
    precision = ("bfloat16" if half else "float32") + (", compiled" if compiled else "")
    arguments = (architecture, str(size), str(int(half)), str(repo))
    return [
        architecture.removeprefix("stedfm-vit-"),
        str(size),
        precision,
        spread(rates.values["data"], 0),
        spread(rates.values["step"], 0),
        spread(rates.values["whole"], 0),
        spread(rates.ratios("whole", "step")),
        f"{spread(waiting[-rounds:], 1)} %",
        spread(rates.ratios("step", "matmul", training.flops())),
        f"{peak_memory('tests.benchmarks.bench_pretraining', '--peak', *arguments):.0f}",
    ]


def _name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="about as long as every measurement takes")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks_pretraining.md"))
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        architecture, size, half, repo = arguments.peak
        training = Training(architecture, int(size), half=half == "1", compiled=False, repo=Path(repo))
        training.run(4, "whole")
        print(torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else own_peak())
        return
    text = INTRODUCTION.format(machine=machine()) + "\n\n" + measure(arguments.rounds, arguments.seconds) + "\n"
    print(text)
    arguments.output.write_text(text, encoding="utf-8")


INTRODUCTION = """# Benchmarks of the pretraining

Made by `python -m tests.benchmarks.bench_pretraining` on: {machine}.

Everything in a row ran in turn, round by round; ratios are formed inside a round. Given is the **median** and, in
brackets, every round. No CUDA GPU was at hand unless one is named here: GPU figures are still to be measured, with the
same command."""


if __name__ == "__main__":
    main()
