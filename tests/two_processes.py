"""Run in two processes of torch.distributed: gradients under DistributedDataParallel against those of one batch.

Usage: `python -m torch.distributed.run --standalone --nproc_per_node 2 tests/two_processes.py RESULT_FILE`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from tests.tiny_models import TRAINABLE, hold_statistics


def gradients(model: torch.nn.Module) -> torch.Tensor:
    """Return all gradients in one vector."""
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def differences() -> dict[str, float]:
    """Return the largest relative difference of the gradients of each case, in a group of 1, 2 or 4 processes."""
    rank, found = torch.distributed.get_rank(), dict[str, float]()
    count = 4 // torch.distributed.get_world_size()
    for case in TRAINABLE:
        inputs: dict[str, Any] = case.inputs(4)
        whole, parallel = case.model().train(), case.model().train()
        hold_statistics(whole)
        hold_statistics(parallel)
        whole(**inputs).loss.backward()
        wrapped = DistributedDataParallel(parallel)
        own = {name: values[count * rank : count * (rank + 1)] for name, values in inputs.items()}
        for _ in range(2):  # a weight without a gradient stops the second step
            parallel.zero_grad()
            wrapped(**own).loss.backward()
        found[str(case)] = float((gradients(parallel) - gradients(whole)).abs().max() / gradients(whole).abs().max())
    return found


def main() -> None:
    """Write the differences to a file."""
    torch.distributed.init_process_group("gloo")
    found = differences()
    if torch.distributed.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
