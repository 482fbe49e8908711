from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "stedfm_hf"
HARMFUL = ("torchvision", "timm", "lightly")
DATA_SUFFIXES = {".pyi", ".yaml", ".json", ".sbatch", ".jinja", ".html", ".css", ".js", ".md", ".safetensors"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel built from a copy, in which the folders that must not be shipped are real packages.

    In a checkout `modeling` and `training` are links, which setuptools follows as if they were real.
    """
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(PACKAGE, copy / "stedfm_hf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("modeling", "training", "tests", "docs"):
        (copy / name).mkdir()
        (copy / name / "__init__.py").touch()
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    run = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"stedfm_hf"}
    wanted = {path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".typed"} | DATA_SUFFIXES}
    wanted |= {*(PACKAGE / "hub" / "endpoint").glob("*"), *(PACKAGE / "cards").glob("*.txt")}
    wanted = {path for path in wanted if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in wheel if name.startswith("stedfm_hf/")} == {
        path.relative_to(ROOT).as_posix() for path in wanted
    }
    assert "stedfm_hf/py.typed" in wheel
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="a checkout on Windows may have files in the place of links")
@pytest.mark.parametrize("room", ["modeling", "training"])
def test_the_rooms_most_people_look_for_are_linked(room: str) -> None:
    assert (ROOT / room).is_symlink() and (ROOT / room).readlink() == Path("stedfm_hf", room)


def test_nothing_harmful_is_asked_for(project: dict[str, Any], constraints: dict[str, str]) -> None:
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {canonicalize_name(Requirement(text).name) for text in asked}
    assert not names.intersection(HARMFUL) and not set(constraints).intersection(HARMFUL)


def test_every_dependency_has_an_exact_version_within_its_range(
    project: dict[str, Any], constraints: dict[str, str]
) -> None:
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    for requirement in map(Requirement, asked):
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(constraints[canonicalize_name(requirement.name)]), str(requirement)
    assert constraints["torch"] == "2.13.0"


def test_all_is_the_sum_of_the_extras_that_need_no_compiler_or_instrument(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert everything.name == project["name"] and everything.extras == set(extras) - {
        "all",
        "dev",
        "docs",
        "deepspeed",
        "imspector",
    }


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    import stedfm_hf

    assert stedfm_hf.__version__ == project["version"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_no_script_in_training_hides_an_installed_package() -> None:
    """A script finds its neighbours first: a `datasets.py` beside it would be imported in the library's place."""
    names = {path.stem for path in (PACKAGE / "training").glob("*") if not path.name.startswith("__")}
    assert names.isdisjoint(metadata.packages_distributions())
    assert names.isdisjoint(sys.stdlib_module_names)


def test_no_module_imports_torchvision_or_its_users_when_it_is_imported() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in _run_at_import(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names}.intersection(HARMFUL), path


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Every node outside of functions."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for each in ast.iter_child_nodes(node):
            yield from _run_at_import(each)


@pytest.mark.slow
def test_every_module_is_imported_without_torchvision() -> None:
    code = f"""
import importlib, pkgutil, sys
for name in {HARMFUL}:
    sys.modules[name] = None
import stedfm_hf
for module in pkgutil.walk_packages(stedfm_hf.__path__, "stedfm_hf."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
