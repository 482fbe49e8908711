"""Public names of the package, found by griffe without importing it.

A name is public if neither it nor a module or class that it is in starts with an underscore.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "docs" / "tools" / "griffe_settings.py"
_LOGGER = "griffe"


@cache
def load_package(name: str = "stedfm_hf", folder: Path = ROOT) -> griffe.Module:
    """Read a package without importing it.

    Args:
        name: Name of the package.
        folder: Folder that the package is in.
    """
    extensions = griffe.load_extensions(str(EXTENSION))
    package = griffe.load(
        name, search_paths=[folder], extensions=extensions, docstring_parser="google", allow_inspection=False
    )
    assert isinstance(package, griffe.Module)
    return package


def public_objects(parent: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    """Yield the modules, classes, functions, methods and attributes that are public, without imported names."""
    for name, each in parent.members.items():
        if each.is_alias or name.startswith("_"):
            continue
        assert isinstance(each, griffe.Object)
        yield each
        if isinstance(each, griffe.Module | griffe.Class):
            yield from public_objects(each)


def exported_names(module: griffe.Module) -> list[str]:
    """Return the names that a package offers: those of `__all__`, or of its stub file `__init__.pyi`."""
    if module.exports is not None:
        return [str(each) for each in module.exports]
    path = module.filepath
    if not isinstance(path, Path) or not path.with_suffix(".pyi").is_file():
        return []
    stub = ast.parse(path.with_suffix(".pyi").read_text("utf-8"))
    return [
        alias.asname or alias.name for each in stub.body if isinstance(each, ast.ImportFrom) for alias in each.names
    ]


def docstring_problems(package: griffe.Module) -> list[str]:
    """Return what is wrong with the docstrings of the public names, one line each.

    Wrong are missing docstrings, those that griffe warns about, such as a documented argument that is absent, and
    doctests outside of a code block, which a page shows as quoted text, and roles of Sphinx, which it shows as text.

    Args:
        package: The package, as `load_package` returns it.
    """
    missing = [
        f"{_place(each)}: {each.kind.value} {each.path} has no docstring"
        for each in [package, *public_objects(package)]
        if _needs_docstring(each) and not each.has_docstring
    ]
    outside = [
        f"{_place(each)}: {each.path} has a doctest outside of a code block; put it into a section Example"
        for each in [package, *public_objects(package)]
        if each.docstring is not None and _shows_doctest_as_text(each.docstring)
    ]
    outside += [
        f"{_place(each)}: {each.path} has a role of Sphinx ({role[0]}); write the name in backticks"
        for each in [package, *public_objects(package)]
        if each.docstring is not None and (role := re.search(r":\w+:`[^`]+`", each.docstring.value))
    ]
    with _Warnings() as warnings:
        for each in [package, *public_objects(package)]:
            if each.docstring is not None:
                each.docstring.parse("google", returns_multiple_items=False, returns_named_value=False)
    return missing + outside + warnings.lines


def _shows_doctest_as_text(docstring: griffe.Docstring) -> bool:
    sections = docstring.parse("google", returns_multiple_items=False, returns_named_value=False, warnings=False)
    texts = [each.value for each in sections if each.kind is griffe.DocstringSectionKind.text]
    return any(">>> " in re.sub(r"```.*?```", "", text, flags=re.DOTALL) for text in texts)


def _needs_docstring(each: griffe.Object) -> bool:
    """Fields and constants are documented in the docstring of their class or in comments."""
    return not each.is_attribute or "property" in each.labels


def _place(each: griffe.Object) -> str:
    return f"{each.relative_filepath}:{each.lineno or 1}"


class _Warnings(logging.Handler):
    """Collects what griffe warns about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> _Warnings:
        logging.getLogger(_LOGGER).addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger(_LOGGER).removeHandler(self)
