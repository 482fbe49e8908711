"""Processes of torch.distributed give the gradients of one batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

from tests.tiny_models import TRAINABLE
from tests.two_processes import differences

ROOT = Path(__file__).parents[2]


def check(found: dict[str, float]) -> None:
    assert set(found) == set(map(str, TRAINABLE))
    assert {name: difference for name, difference in found.items() if difference > 1e-4} == {}


def test_every_weight_takes_part_where_gradients_are_averaged(tmp_path: Path) -> None:
    """One process finds what two find, except errors of the mean over processes."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        check(differences())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_large_batch(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "tests/two_processes.py"]
    done = subprocess.run(
        [sys.executable, *launcher, str(tmp_path / "found.json")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(json.loads((tmp_path / "found.json").read_text(encoding="utf-8")))
