"""Pretraining with `--torch_compile`: compiled once, and not again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from tests.training.pretraining import as_stopped, curve_of, run, write_blobs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*ranks reads", "ignore:.*each epoch drops")
def test_checks_epochs_and_resuming_compile_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = write_blobs(tmp_path / "crops")
    torch._dynamo.reset()
    counters.clear()
    # The library says in the environment that it compiles: what a monkeypatch has set is unset for the next test.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    # The backend that needs no C++ compiler; what is traced, and how often, is the same.
    words = "--max_steps 6 --save_total_limit 3 --torch_compile --torch_compile_backend aot_eager"
    run(crops, tmp_path / "compiled", words)
    resumed = as_stopped(tmp_path / "compiled", tmp_path / "resumed", 4)
    run(crops, resumed, words)
    assert dict(counters["frames"]) == {"total": 1, "ok": 1}
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert curve_of(resumed) == curve_of(tmp_path / "compiled")
