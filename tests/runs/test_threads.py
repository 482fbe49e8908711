"""Every entry point decides how OpenMP threads wait before torch is imported; importing the package does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.runs.threads import limit_spinning

ROOT = Path(__file__).parents[2]
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
# Prints what OpenMP would read when torch is imported; torch is a stand-in, so that this takes no seconds. A command
# that ends without torch prints the same at its end.
REPORT = f"""
import os
def report():
    print("torch sees", *(os.environ.get(name) for name in {SETTINGS}), flush=True)
"""
STAND_INS = {
    "report.py": REPORT,
    "sitecustomize.py": "import atexit, report\natexit.register(report.report)\n",
    "torch.py": "import os, report\nreport.report()\nos._exit(0)\n",
}
DEFAULT = "torch sees None 10000 0 None"
IMAGE = "image.npy"
ENTRY_POINTS = [
    ["-m", "stedfm_hf.cli", "embed", IMAGE, "--model", "demo"],
    ["-m", "stedfm_hf.training.pretrain", "--help"],
    ["-m", "stedfm_hf.training.demo_encoder", "--help"],
    *([str(ROOT / "training" / f"{name}.py"), "--help"] for name in ("pretrain", "classify", "segment")),
    ["-m", "pytest", "-s", "--rootdir", str(ROOT), str(ROOT / "tests/modeling/test_tiling.py")],
    ["-m", "tests.benchmarks"],
]


def seen_by_torch(words: list[str], folder: Path, **chosen: str) -> str:
    """Run Python with a stand-in for torch and return the line that it prints."""
    for name, code in STAND_INS.items():
        (folder / name).write_text(code, encoding="utf-8")
    np.save(folder / IMAGE, np.zeros((8, 8), np.uint8))
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | chosen
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins take seconds to import
    run = subprocess.run(
        [sys.executable, *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )
    return next((line for line in run.stdout.splitlines() if line.startswith("torch sees")), run.stdout + run.stderr)


@pytest.mark.parametrize("words", ENTRY_POINTS, ids=lambda words: " ".join(Path(word).name for word in words[:3]))
def test_entry_points_limit_spinning(words: list[str], tmp_path: Path) -> None:
    assert seen_by_torch(words, tmp_path) == DEFAULT


def test_an_entry_point_keeps_what_the_user_chose(tmp_path: Path) -> None:
    assert seen_by_torch(ENTRY_POINTS[0], tmp_path, OMP_WAIT_POLICY="active") == "torch sees active None None None"


def test_importing_the_package_leaves_the_environment_alone(tmp_path: Path) -> None:
    words = ["-c", "import stedfm_hf, stedfm_hf.cli; stedfm_hf.StedFmModel"]
    assert seen_by_torch(words, tmp_path) == "torch sees None None None None"


@pytest.mark.parametrize("name", SETTINGS)
def test_any_setting_of_the_user_switches_the_default_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {name: "7"})
    limit_spinning()
    assert os.environ == {name: "7"}
