"""What needs no model answers without torch, transformers and datasets: they take seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import json, sys
from stedfm_hf.cli import main
answers = []
for words in json.loads(sys.argv[1]):
    status = main(words)
    answers.append([words, status, sorted({"torch", "transformers", "datasets"}.intersection(sys.modules))])
print(json.dumps(answers), file=open(sys.argv[2], "w"))
"""
COMMANDS = ("build", "import-archive", "import-set", "list", "push", "simulate", "stats")


def answers(tmp_path: Path, *commands: str) -> dict[str, tuple[int, list[str]]]:
    """The exit status of every command line, and the slow modules that were imported by then."""
    words = json.dumps([each.split() for each in commands])
    report = tmp_path / "report.json"
    run = [sys.executable, "-c", SCRIPT, words, str(report)]
    ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return {" ".join(words): (status, slow) for words, status, slow in json.loads(report.read_text("utf-8"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with an image, a folder without any, and a folder of somebody else."""
    for name in ("images", "empty", "mine"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "images" / "a.npy", np.zeros((40, 40), np.uint16))
    (tmp_path / "mine" / "thesis.txt").write_text("precious", encoding="utf-8")
    return tmp_path


def test_help_is_fast(folder: Path) -> None:
    found = answers(folder, "data --help", *(f"data {command} --help" for command in COMMANDS))
    assert all(each == (0, []) for each in found.values()), found


def test_wrong_inputs_and_outputs_are_told_fast(folder: Path) -> None:
    found = answers(
        folder,
        "data stats nowhere",
        "data stats empty",
        "data stats",
        "data stats images --nonsense",
        "data build nowhere --output out",
        "data build empty --output out",
        "data build images --output mine",
        "data build images --output mine/thesis.txt",
        "data build images --output out --labels nowhere.csv",
        "data build images --output out --masks nowhere",
        "data build images --output out --crop-size 0",
        "data import-archive nowhere.zip --output out",
        "data import-archive mine/thesis.txt --output out",
        "data import-set imagenet images --output out",
        "data import-set optim nowhere --output out",
        "data import-set optim images --output mine",
        "data simulate --output mine",
        "data simulate --output out --structures rod",
        "data simulate --output out --splits train",
        "data simulate --output out --seed -1",
        "data simulate --output out --preset benchmark-v2",
        "data simulate --output out --preset benchmark-v1 --photons 1 2",
        "data push nowhere lab/cells",
        "data push images cells",
        "data push empty lab/cells",
    )
    assert all(each == (2, []) for each in found.values()), found
