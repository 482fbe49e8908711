"""Items that kill their worker are found; the others are done."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stedfm_hf.runs.attempts import BATCH_ATTEMPTS, attempt
from stedfm_hf.runs.executors import ProcessWorkers, run_items

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes the POSIX way")
NAMES = [f"{number}.tif" for number in range(7)]


def work(name: str, deadly: Sequence[str]) -> None:
    """Kill this process at a deadly item."""
    if name in deadly:
        os.kill(os.getpid(), signal.SIGKILL)


def batch(names: list[str], deadly: Sequence[str], folder: Path) -> list[str]:
    """Do a batch of items, and return those that are given up."""
    with attempt({name: name for name in names}, folder, lambda name: work(name, deadly)) as given_up:
        for name in names:
            if name not in given_up:
                work(name, deadly)
    return sorted(given_up)


@settings(deadline=None, max_examples=8)
@given(st.sets(st.sampled_from(NAMES), max_size=5))
def test_every_deadly_item_is_given_up_after_three_deaths_and_no_other(deadly: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        deaths = 0
        while True:
            child = os.fork()
            if child == 0:
                (Path(folder) / "given_up").write_text("\n".join(batch(NAMES, sorted(deadly), Path(folder) / "parts")))
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                break
            deaths += 1
        assert set((Path(folder) / "given_up").read_text().split()) == deadly
        assert deaths == (1 + 2 * len(deadly) if deadly else 0)
        assert not list((Path(folder) / "parts").iterdir())


def test_a_worker_killed_at_random_loses_no_item(tmp_path: Path) -> None:
    batch(NAMES, [], tmp_path)
    record = next(iter(_begun(tmp_path)))
    assert record.exists()
    assert batch(NAMES, [], tmp_path) == []


def _begun(folder: Path) -> list[Path]:
    """Leave the record of an attempt behind, as a killed worker does."""
    child = os.fork()
    if child == 0:
        batch(NAMES, NAMES[3:4], folder)
    os.waitpid(child, 0)
    return list(folder.glob("*.attempts.json"))


def test_a_pool_goes_on_after_a_deadly_item(tmp_path: Path) -> None:
    calls = [(NAMES[:3], NAMES[1:2], tmp_path), (NAMES[3:], [], tmp_path)]
    workers = ProcessWorkers(2)
    results = list(run_items(batch, calls, workers=workers, attempts=BATCH_ATTEMPTS))
    workers.shutdown()
    assert sorted(results) == [[], NAMES[1:2]]
