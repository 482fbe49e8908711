"""Check a release (`make release-check`): build it, install the wheel into an empty environment, and use it there.

In that environment, which has no extras, every module is imported and every block of the README is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import read_blocks
from tests.docs.world import World, needed_parts

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "release"
PRETRAINING = "stedfm pretrain"
"""Command that is left out: it needs more images than the tests have, and hours."""
IMPORT_ALL = """
import importlib, pkgutil, stedfm_hf
names = [each.name for each in pkgutil.walk_packages(stedfm_hf.__path__, "stedfm_hf.") if "__main__" not in each.name]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The parts of the app are imported after the command has checked that Gradio is installed.
        if error.name != "gradio" or not name.startswith("stedfm_hf.app."):
            raise
print(f"{len(names)} modules imported from {stedfm_hf.__path__[0]}")
"""


def main() -> None:
    """Build the release, install it and use it; the first failure ends the program with its output."""
    shutil.rmtree(WORK, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", str(WORK / "dist"), str(ROOT))
    (wheel,) = (WORK / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", str(WORK / "env"))
    python = WORK / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    # With it, pip would find the package in this folder, and not install it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    install = ("install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    run(str(python), "-m", "pip", *install, env=environment)
    work = WORK / "use"
    work.mkdir()
    run(str(python), "-c", IMPORT_ALL, cwd=work, env=environment)
    blocks = [block for block in read_blocks(ROOT / "README.md") if block.not_run is None]
    blocks = [block for block in blocks if block.language in ("bash", "python") and PRETRAINING not in block.code]
    World(WORK / "world").copy(needed_parts(blocks), work)
    for block in blocks:
        print(f"{block}:", flush=True)
        words = ["bash", "-e", "-c"] if block.language == "bash" else [str(python), "-c"]
        run(*words, block.code, cwd=work, env=environment)
    print(f"{wheel.name}: installed and used, {len(blocks)} blocks of the README ran")


def run(*words: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run a command; exit with its status if it fails."""
    status = subprocess.run(words, cwd=cwd, env=env).returncode
    if status:
        sys.exit(f"{' '.join(words[:3])} ...: exit status {status}")


if __name__ == "__main__":
    main()
