"""Two processes give the gradients of one batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.tiny_models import TRAINABLE

ROOT = Path(__file__).parents[2]


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
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert set(found) == set(map(str, TRAINABLE))
    assert {name: difference for name, difference in found.items() if difference > 1e-4} == {}
