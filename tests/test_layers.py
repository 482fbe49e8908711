"""The layers of docs/explanation/architecture.md: allowed imports between packages, and no import cycles."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "stedfm_hf"
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [
    {"modeling"},
    {"runs"},
    {"images", "reports", "cards"},
    {"weights"},
    {"data"},
    {"labels", "metrics", "exports"},
    {"inference"},
    {"hub", "interpretability"},
    {"evaluation"},
    {"training"},
    {"discovery", "generation"},
    {"acquisition", "studies"},
    {"app"},
    {"demo", "doctor", "info"},
    {"cli"},
]
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
# The packages inside `data`, from the lowest up.
DATA_LAYERS = [
    {"settings", "splits"},
    {"repository"},
    {"publishing", "streaming"},
    {"assembly"},
    {"building", "archives", "simulation"},
    {"official"},
]
DATA_LAYER = {package: number for number, packages in enumerate(DATA_LAYERS) for package in packages}
# Models save the code of all models, and that code makes models.
CYCLES = [{"hub_stedfm", "modeling_stedfm", "modeling_stedfm_mae", "modeling_stedfm_segmentation"}]
MOST_LINES = 500
HUB_CODE_MAY_IMPORT = {"torch", "transformers", "huggingface_hub", "numpy"} | sys.stdlib_module_names
# Folders of models do not need diffusers; those of pipelines that generate images do.
GENERATION_CODE = {"unet_stedfm.py", "sampling_stedfm.py", "generation_pipeline_stedfm.py"}
HUB_CODE_MAY_TRY = {"PIL", "tifffile"}


def imported(tree: ast.AST, module: list[str], is_package: bool) -> Iterator[tuple[ast.stmt, list[str]]]:
    """Every import with the full name of what it takes, relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            depth = node.level - is_package if node.level else 0
            base = module[: len(module) - depth] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            yield from ((node, [*base, alias.name]) for alias in node.names)


@cache
def imports(path: Path) -> list[tuple[int, list[str], bool]]:
    """Line and full name of every import of a file, and whether only type checkers see it."""
    tree, module, is_package = parse(path)
    hidden = {
        id(statement)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
    }
    return [(node.lineno, name, id(node) in hidden) for node, name in imported(tree, module, is_package)]


def parse(path: Path) -> tuple[ast.Module, list[str], bool]:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    return ast.parse(path.read_text(encoding="utf-8")), parts[:-1] if is_package else parts, is_package


def wrong_imports(path: Path) -> list[str]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[1:] == ("__init__",):  # the package itself shows names of several layers
        return []
    package, wrong = parts[1], []
    for line, name, _ in imports(path):
        if name[0] == "stedfm_hf":
            other = name[1] if len(name) > 1 else ""
            if other != package and LAYER.get(other, len(LAYERS)) >= LAYER[package]:
                wrong.append(f"line {line}: {'.'.join(name)}")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_package_imports_only_from_layers_below(path: Path) -> None:
    assert wrong_imports(path) == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").glob("*/*.py")), ids=lambda path: path.as_posix()[-40:])
def test_a_package_of_data_imports_only_from_those_below(path: Path) -> None:
    tree, _, _ = parse(path)
    package, wrong = path.parent.name, []
    for node, name in imported(tree, [], False):
        other = name[2] if name[:2] == ["stedfm_hf", "data"] and len(name) > 3 else package
        if other != package and DATA_LAYER[other] >= DATA_LAYER[package]:
            wrong.append(f"line {node.lineno}: {'.'.join(name)}")
    assert wrong == []


def file_of(name: list[str]) -> Path | None:
    """The file of the package that a full name is in."""
    for end in range(len(name), 0, -1):
        path = ROOT.joinpath(*name[:end])
        for each in (path.with_suffix(".py"), path / "__init__.py"):
            if each.is_file() and each != PACKAGE / "__init__.py":
                return each
    return None


def test_no_file_imports_itself_through_others() -> None:
    graph = networkx.DiGraph()
    for path in FILES:
        for _, name, hidden in imports(path):
            other = file_of(name) if name[0] == "stedfm_hf" and not hidden else None
            if other is not None and other != path:
                graph.add_edge(path, other)
    found = [each for each in networkx.strongly_connected_components(graph) if len(each) > 1]
    assert [{path.stem for path in each} for each in found] == CYCLES


def test_every_file_is_short_enough_to_read() -> None:
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_every_package_has_a_layer() -> None:
    packages = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__", "__main__"}
    assert packages <= set(LAYER)


@pytest.mark.parametrize("path", sorted((PACKAGE / "modeling").glob("*_stedfm*.py")), ids=lambda path: path.name)
def test_code_for_the_hub_stands_alone(path: Path) -> None:
    """These files are copied into Hub folders, where there is no stedfm_hf and maybe no Pillow and no tifffile."""
    tree, module, is_package = parse(path)
    tried = {
        id(statement)
        for node in tree.body
        if isinstance(node, ast.Try)
        and any(isinstance(handler.type, ast.Name) and handler.type.id == "ImportError" for handler in node.handlers)
        for statement in node.body
    }
    for node, name in imported(tree, module, is_package):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module is not None and "." not in node.module, f"line {node.lineno}"
            assert (PACKAGE / "modeling" / f"{node.module}.py").exists()
        else:
            allowed = HUB_CODE_MAY_IMPORT | (HUB_CODE_MAY_TRY if id(node) in tried else set())
            allowed |= {"diffusers"} if path.name in GENERATION_CODE else set()
            assert name[0] in allowed, f"line {node.lineno}: {'.'.join(name)}"


def test_tests_stand_in_the_folder_of_what_they_test() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    tested = {folder for folder in folders if (PACKAGE / folder).is_dir() or str(folder) == "docs"}
    assert sorted(map(str, folders - tested)) == []


def test_an_import_upwards_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "stedfm_hf" / "data" / "simulate.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from ..runs import UserError\nfrom ..hub import convert\nfrom .. import cli\n"
        "import stedfm_hf.training.pretrain\nfrom .structures import rings\nimport stedfm_hf\n",
        encoding="utf-8",
    )
    assert wrong_imports(path) == [
        "line 2: stedfm_hf.hub.convert",
        "line 3: stedfm_hf.cli",
        "line 4: stedfm_hf.training.pretrain",
        "line 6: stedfm_hf",
    ]
