"""Finders on disk: a killed server, incomplete files, damaged ones and another model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from stedfm_hf import StedFmModel
from stedfm_hf.acquisition import Client, load_finder
from stedfm_hf.runs import UserError
from tests.acquisition.serving.serving_world import field, mask, serving
from tests.models import tiny_config


def test_a_restart_keeps_clients_and_finders_and_cleans_up(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path) as http:
        client = Client(http=http)
        finder = client.create_finder(field(0), mask=mask(0), rotations=False)
        finder = client.add_annotations(finder, field(1), mask=mask(1))
        scores = client.score(field(1), finder).values
    (folder,) = tmp_path.glob(f"clients/*/{finder.id}")
    assert {each.name for each in folder.iterdir()} == {"about.json", "patches", "fit-0002"}
    assert load_finder(folder / "fit-0002").record["images"] == 2
    left = [folder.with_name(".incomplete"), folder / ".fit-0003", folder / "fit-0001"]
    for each in left:
        each.mkdir()
    (folder / "patches" / "0003.safetensors").write_bytes(b"of a fit that was not stored")
    with serving(model, tmp_path) as http:
        again = Client(http=http, token=client.token)
        assert again.finders() == [finder] and np.array_equal(again.score(field(1), finder).values, scores)
        assert not any(each.exists() for each in left) and len(list((folder / "patches").iterdir())) == 2
        assert again.add_annotations(finder, field(0), mask=mask(0)).images == 3
        with pytest.raises(UserError, match="the token is wrong"):
            Client(http=http, token="x" * 40).finders()


def test_damaged_finders_and_another_model_are_reported(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "state") as http:
        client = Client(http=http)
        finder = client.create_finder(field(0), mask=mask(0), rotations=False)
    torch.manual_seed(1)
    StedFmModel(tiny_config()).save_pretrained(tmp_path / "other")
    with serving(tmp_path / "other", tmp_path / "state") as http:
        client = Client(http=http, token=client.token)
        assert client.finders() == [finder]
        for act in (
            lambda: client.score(field(0), finder),
            lambda: client.add_annotations(finder, field(0), mask=mask(0)),
        ):
            with pytest.raises(UserError, match="was fitted with another model"):
                act()
    (file,) = tmp_path.rglob("finder.safetensors")
    file.write_bytes(b"damaged")
    with serving(model, tmp_path / "state") as http:
        client = Client(http=http, token=client.token)
        with pytest.raises(UserError, match="the files of the finder are damaged; delete it"):
            client.score(field(0), finder)
        client.delete_finder(finder)
        assert client.finders() == []


@contextmanager
def process(model: Path, state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve in another process; gives it and its address."""
    words = ["serve", "--model", str(model), "--state", str(state), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-m", "stedfm_hf.cli", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as running:
        try:
            assert running.stderr is not None
            for line in running.stderr:
                if found := re.search(r"the server is at (\S+)", line):
                    yield running, found[1]
                    break
            else:
                raise AssertionError("the server did not start")
        finally:
            running.kill()


@pytest.mark.slow
def test_a_killed_server_loses_no_finder(model: Path, tmp_path: Path) -> None:
    known = {}
    with process(model, tmp_path) as (running, address):
        client = Client(address, timeout_s=30)
        for _ in range(3):
            finder = client.create_finder(field(0), mask=mask(0), rotations=False)
            known[finder.id] = client.score(field(1), finder).values

        def keep_changing() -> None:
            try:
                while True:
                    client.add_annotations(finder, field(1), mask=mask(1))
            except UserError:
                pass

        changing = threading.Thread(target=keep_changing)
        changing.start()
        threading.Event().wait(0.5)
        running.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        changing.join(30)
    with process(model, tmp_path) as (_, address):
        again = Client(address, token=client.token, timeout_s=30)
        assert {each.id for each in again.finders()} == set(known)
        for name, values in known.items():
            found = again.score(field(1), name).values
            assert name == finder.id or np.array_equal(found, values)
