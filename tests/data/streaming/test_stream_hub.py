"""Streaming from the Hub, in a process that uses a local server as the Hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.data.repository.layout import Crop, Scaling
from tests.data.repos import write_crops
from tests.hub_server import Hub, environment_of, hub_server

ROOT = Path(__file__).parents[3]
CODE = """
import json, sys
from stedfm_hf.data import stream
from stedfm_hf.runs import UserError
answers = []
for name, rank, world in json.loads(sys.argv[1]):
    try:
        batches = stream(name, batch_size=8, rank=rank, world_size=world, seed=3, workers=2)
        answers.append([int(batch["pixels"][0, 0, 0, 0]) for batch in batches])
    except UserError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def ask(hub: Hub, cache: Path, *streams: tuple[str, int, int]) -> list[Any]:
    environment = environment_of(hub, cache)
    del environment["HF_TOKEN"]
    command = [sys.executable, "-c", CODE, json.dumps(streams)]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return list(json.loads(run.stdout))


@pytest.mark.slow
def test_a_hub_id_gives_the_rows_of_the_folder_and_a_rank_reads_its_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (256, 64, 64), dtype=np.uint8)
    crops = [Crop(each, Scaling(0.0, 90.0, applied=True), source=str(number)) for number, each in enumerate(pixels)]
    folder = write_crops(tmp_path / "crops", [crops[k::4] for k in range(4)], group=4)
    size = sum(path.stat().st_size for path in folder.glob("data/*"))
    with hub_server(crops=folder) as hub:
        names = ("lab/crops", "hf://datasets/lab/crops", "lab/crops@main", str(folder))
        answers = ask(hub, tmp_path / "cache", *((name, 0, 1) for name in names))
        assert len(answers[0]) == 32 and all(answer == answers[0] for answer in answers)
        hub.sent = 0
        (half, missing) = ask(hub, tmp_path / "cache", ("lab/crops", 0, 2), ("lab/nothing", 0, 1))
        # A footer is fetched with 64 KiB before it: once for the classes, and by each of two threads for each shard.
        assert len(half) == 16 and hub.sent <= 1.2 * size / 2 + 9 * 65_536
        assert missing.startswith("lab/nothing: cannot be loaded as a data set")
