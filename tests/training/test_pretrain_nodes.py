"""Pretraining on two nodes, of which one is lost: `torchrun` starts the processes again, from the last checkpoint."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.object_store import Bucket
from tests.training.pretraining import (
    ROOT,
    SCRIPT,
    assert_same_losses,
    assert_same_weights,
    launch,
    words_of,
    write_blobs,
)

pytestmark = pytest.mark.slow
WORDS = "--max-steps 24 --eval-steps 0"


class Nodes:
    """Two nodes on this machine, each of which is a `torchrun` with one process.

    With the variable that they get, a new node learns the address of the first one also in a second round.

    Args:
        words: Words of the training.
        number: Number of nodes for `--nnodes`.
        log: File that gets the lines of both.
    """

    def __init__(self, words: list[str], number: str, log: Path) -> None:
        self.words, self.number, self.log = words, number, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.processes = [self.start(0), self.start(1)]

    def start(self, node: int) -> subprocess.Popen[str]:
        """Start a node; node 0 holds the rendezvous."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", self.number, "--nproc-per-node", "1"]
        rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{self.port}", "--rdzv-id", "test"]
        options = [f"--rdzv-conf=is_host={1 - node},last_call_timeout=5", "--max-restarts", "3"]
        with self.log.open("a") as log:
            return subprocess.Popen(
                [*launcher, *rendezvous, *options, SCRIPT, *self.words],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
                stdout=log,
                stderr=log,
                text=True,
            )

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Wait until a node prints a text."""
        end = time.monotonic() + seconds
        while text not in self.log.read_text(encoding="utf-8"):
            assert time.monotonic() < end and self.processes[0].poll() is None, self.log.read_text(encoding="utf-8")
            time.sleep(0.02)

    def kill(self, node: int) -> None:
        """Kill `torchrun` and the training of a node, which is in another session."""
        launcher = psutil.Process(self.processes[node].pid)
        for process in [launcher, *launcher.children(recursive=True)]:
            process.kill()
        self.processes[node].wait()


@contextmanager
def started(words: list[str], number: str, log: Path) -> Iterator[Nodes]:
    """Start two nodes, and kill what is left of them at the end."""
    nodes = Nodes(words, number, log)
    try:
        yield nodes
    finally:
        for node, process in enumerate(nodes.processes):
            if process.poll() is None:
                nodes.kill(node)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("data") / "crops")


@pytest.fixture(scope="module")
def whole(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes on the folder."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    launch(words_of(crops, output, WORDS))
    return output


@pytest.mark.parametrize("number", ["2", "1:2"])
def test_a_lost_node_is_replaced_or_the_other_continues_alone(
    crops: Path, whole: Path, bucket: Bucket, tmp_path: Path, number: str
) -> None:
    output = tmp_path / "run"
    url = bucket.put(crops, "crops")
    with started(words_of([url], output, WORDS), number, tmp_path / "log") as nodes:
        nodes.wait_for("step 10/24")
        nodes.kill(1)
        sent = bucket.server.bytes_sent
        if number == "2":
            nodes.processes[1] = nodes.start(1)
        nodes.wait_for("resuming after step")
        assert nodes.processes[0].wait(300) == 0
        if number == "2":
            assert nodes.processes[1].wait(60) == 0
    assert 0 < sent < bucket.server.bytes_sent
    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert said.count("2 processes x 4 crops") == (2 if number == "2" else 1)
    if number == "2":
        assert_same_weights(output, whole)
    else:
        assert "1 process x 8 crops" in said
    assert_same_losses(output, whole)
