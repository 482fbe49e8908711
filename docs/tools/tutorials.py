"""Run the tutorials and turn each into a page, its figures and a notebook.

A tutorial is a script in docs/tutorials/ in jupytext's percent format. It runs in an empty folder, offline. The result
is kept in build/tutorials/ until the script or the package changes.

    python -m docs.tools.tutorials                                 # run those that changed
    python -m docs.tools.tutorials docs/tutorials/pretrain.py      # run one

In a script, `# %% [markdown]` starts text, `# %%` code, `# %% language="bash"` commands and `# %% alt="..."` code
whose figure needs a description. Standard error, with progress bars and notes, is left out of the page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "docs" / "tutorials"
CACHE = ROOT / "build" / "tutorials"
TEMPLATES = Path(__file__).parent / "templates"
SECONDS_PER_CELL = 1800
# Jupyter goes on after a command (`!stedfm ...`) that fails.
_CHECK_COMMANDS = """\
def check(command, run=get_ipython().system):
    run(command)
    if status := get_ipython().user_ns["_exit_code"]:
        raise RuntimeError(f"exit status {status}: {command}")

get_ipython().system = check
"""
_CODE_SUFFIXES = {".py", ".yaml", ".json", ".jinja", ".html", ".md", ".safetensors"}


@dataclass(frozen=True)
class Page:
    """Result of a tutorial.

    Attributes:
        name: Name of the script without its suffix.
        files: Contents by file name: `NAME.md`, `NAME.ipynb` and the figures.
    """

    name: str
    files: dict[str, bytes]


def find_tutorials(folder: Path = SCRIPTS) -> list[Path]:
    """Return the scripts of the tutorials, by name."""
    return sorted(folder.glob("*.py"))


def build_page(
    script: Path, *, package: Path = ROOT / "stedfm_hf", cache: Path = CACHE, any_package: bool = False
) -> Page:
    """Return the page of a tutorial, from the cache if neither the script nor the package changed.

    Args:
        script: Script in jupytext's percent format.
        package: Folder of the package that the script uses.
        cache: Folder of the results.
        any_package: Whether a page in the cache that was made with other code of the package will do.

    Raises:
        CellExecutionError: A cell of the script raises.
    """
    folder = cache / script.stem
    key = {"script": hash_files([script, *_tool_files()]), "package": hash_files(_package_files(package))}
    stamp = folder / "hash.json"
    known = json.loads(stamp.read_text("utf-8")) if stamp.is_file() else {}
    if known == key or (any_package and known.get("script") == key["script"]):
        return Page(script.stem, {path.name: path.read_bytes() for path in sorted((folder / "page").iterdir())})
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    print(f"docs: run {script.name} ...", file=sys.stderr, flush=True)
    page = render(script.stem, run(script, folder / "work"))
    (folder / "page").mkdir()
    for name, content in page.files.items():
        (folder / "page" / name).write_bytes(content)
    stamp.write_text(json.dumps(key), "utf-8")
    print(f"docs: {script.name} ran in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return page


def draft_page(script: Path) -> Page:
    """Return the page of a tutorial without running it: text and code, no results.

    Args:
        script: Script in jupytext's percent format.
    """
    return render(script.stem, tidy(jupytext.read(script, fmt="py:percent")))


def run(script: Path, folder: Path) -> Any:
    """Run a script as a notebook in an empty folder and return the notebook with its outputs.

    Args:
        script: Script in jupytext's percent format.
        folder: Folder to run in; created.

    Raises:
        CellExecutionError: A cell raises, or a command in it fails.
    """
    folder.mkdir(parents=True)
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_CHECK_COMMANDS))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    with mock.patch.dict(os.environ, _environment()):
        client.execute()
    del notebook.cells[0]
    return tidy(notebook)


def tidy(notebook: Any) -> Any:
    """Remove what differs from run to run or is meant for a terminal: standard error, times, identifiers."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    tidied, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    tidied.metadata.pop("jupytext", None)
    return tidied


def render(name: str, notebook: Any) -> Page:
    """Convert an executed notebook to a Markdown page with figures and a notebook to download.

    Args:
        name: Name of the page.
        notebook: Notebook with outputs.
    """
    exporter = MarkdownExporter(template_file=str(TEMPLATES / "tutorial.md.j2"))
    text, resources = exporter.from_notebook_node(
        notebook, {"unique_key": name, "output_files_dir": ".", "notebook_name": name}
    )
    figures = {Path(path).name: content for path, content in resources["outputs"].items()}
    stored = nbformat.writes(notebook)
    return Page(name, {f"{name}.md": text.encode(), f"{name}.ipynb": stored.encode(), **figures})


def hash_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of names and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _package_files(package: Path) -> Iterator[Path]:
    for path in sorted(package.rglob("*")):
        if path.suffix in _CODE_SUFFIXES and path.is_file():
            yield path


def _tool_files() -> list[Path]:
    return [Path(__file__), *sorted(TEMPLATES.iterdir())]


def _environment() -> dict[str, str]:
    """Variables that make a tutorial run offline, with this package and without progress bars."""
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(search),
    }


def main() -> None:
    """Run the tutorials that are named on the command line, or all, one on each core."""
    parser = argparse.ArgumentParser(description="Run the tutorials that changed, and keep their pages in build/.")
    parser.add_argument("scripts", nargs="*", type=Path, help="scripts of tutorials; by default all")
    scripts = parser.parse_args().scripts or find_tutorials()
    # Small networks gain little from a second thread, and a second tutorial gains a whole core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as executor:
        for page in [executor.submit(build_page, script) for script in scripts]:
            page.result()


if __name__ == "__main__":
    main()
