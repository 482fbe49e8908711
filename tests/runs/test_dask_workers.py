"""Workers of a Dask cluster that die, whose disk is full, or that lose their scheduler.

The calls need no torch, so that workers start quickly; `test_dask_cluster.py` does the same with commands.
"""

from __future__ import annotations

import errno
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stedfm_hf.runs import UserError
from stedfm_hf.runs.attempts import BATCH_ATTEMPTS
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.executors import run_items
from tests.runs.test_attempts import NAMES, batch

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes the POSIX way")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as started:
        yield started


def write(number: int, full: Sequence[str]) -> str:
    """Fail on the workers with a full disk, and return the address of any other."""
    address: str = distributed.get_worker().address
    if address in full:
        raise OSError(errno.ENOSPC, "No space left on device")
    return address


def test_a_worker_with_a_full_disk_gets_no_calls(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with open_cluster(cluster.scheduler_address) as workers:
        with distributed.Client(cluster) as client:
            first, second = sorted(client.nthreads())
        calls = [(number, [first]) for number in range(8)]
        assert workers is not None and list(run_items(write, calls, workers=workers)) == [second] * len(calls)
        assert f"the disk of the worker {first} is full; other workers go on" in capsys.readouterr().err
        with pytest.raises(OSError, match="No space left"):
            list(run_items(write, [(0, [first, second])], workers=workers))


def test_an_item_that_kills_its_worker_is_given_up_and_the_others_are_done(cluster: Any, tmp_path: Path) -> None:
    calls = [(NAMES[:3], NAMES[1:2], tmp_path), (NAMES[3:], [], tmp_path)]
    with open_cluster(cluster.scheduler_address) as workers:
        assert workers is not None
        results = list(run_items(batch, calls, workers=workers, attempts=BATCH_ATTEMPTS))
    assert sorted(results) == [[], NAMES[1:2]]


def test_a_dead_scheduler_ends_the_calls_with_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    options = ["--no-dashboard", "--scheduler-file", str(file)]
    commands = (
        ["scheduler", "--host", "127.0.0.1", "--port", "0", *options],
        ["worker", "--nthreads", "1", "--no-nanny", "--death-timeout", "60", *options],
    )
    null = subprocess.DEVNULL
    processes = [
        subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=null, stderr=null) for words in commands
    ]
    try:
        while not file.exists() or not file.read_text().strip():
            time.sleep(0.1)
        with open_cluster(json.loads(file.read_text())["address"]) as workers:
            assert workers is not None
            results = run_items(time.sleep, ((0.01,) for _ in itertools.count()), workers=workers)
            next(results)
            processes[0].kill()
            with pytest.raises(UserError, match="has ended; run the same command again to resume"):
                list(results)
    finally:
        for process in processes:
            process.kill()
            process.wait()
