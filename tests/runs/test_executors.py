"""Processes that work, fail and end; that none is left behind is tested where `build` is killed."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from stedfm_hf.runs import UserError
from stedfm_hf.runs.executors import run_items
from stedfm_hf.runs.worker_process import device_or
from stedfm_hf.runs.workers import open_workers


@pytest.mark.parametrize("workers", [1, 2])
def test_calls_are_done_until_one_raises(workers: int) -> None:
    done = []
    with pytest.raises(ZeroDivisionError):
        for result in run_items(divmod, [*((n, 4) for n in range(9)), (1, 0)], workers=workers):
            done.append(result)
    assert set(done) <= {divmod(n, 4) for n in range(9)}
    assert len(done) >= 9 - 2 * workers


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process the POSIX way")
def test_a_killed_process_is_reported_on_one_line() -> None:
    with pytest.raises(UserError, match=r"a worker process was killed 3 times.*run the same command again to resume"):
        list(run_items(signal.raise_signal, [(signal.SIGKILL,)] * 2, workers=2))


def process_and_device(number: int) -> tuple[int, str]:
    time.sleep(0.1)  # so that both processes get calls
    return os.getpid(), device_or("none")


def test_each_device_has_a_process() -> None:
    with open_workers(devices=["cuda:0", "cuda:1"]) as workers:
        found = set(run_items(process_and_device, [(number,) for number in range(8)], workers=workers))
    assert sorted(device for _, device in found) == ["cuda:0", "cuda:1"]
