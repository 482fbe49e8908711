"""The check of docstrings, and the arguments of functions that take settings."""

from __future__ import annotations

from pathlib import Path

import griffe
import pytest

from docs.tools.public_names import docstring_problems, exported_names, load_package

CODE = '''\
"""A module."""

def described(size: int) -> None:
    """Do it.

    Args:
        size: Size in pixels.
        width (int): Not an argument.
    """

def undescribed() -> None: ...

def _private() -> None: ...

class Known:
    """A class."""

    def method(self) -> None: ...

    def shown(self) -> None:
        """Show it, see :func:`other`.

        >>> Known().shown()
        """

    def _private(self) -> None: ...
'''


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    return load_package()


def test_missing_and_wrong_docstrings_are_found(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "__init__.py").write_text(CODE, "utf-8")
    problems = docstring_problems(load_package("small", tmp_path))
    assert [each.partition(": ")[2] for each in problems] == [
        "function small.undescribed has no docstring",
        "function small.Known.method has no docstring",
        "small.Known.shown has a doctest outside of a code block; put it into a section Example",
        "small.Known.shown has a role of Sphinx (:func:`other`); write the name in backticks",
        "Parameter 'width' does not appear in the function signature",
    ]


def test_every_public_name_is_described(package: griffe.Module) -> None:
    assert docstring_problems(package) == []


def test_a_function_that_takes_settings_shows_their_fields(package: griffe.Module) -> None:
    embed = package["inference.embedding.embed"]
    assert [each.name for each in embed.parameters][:3] == ["inputs", "output", "model"]
    assert embed.parameters["batch_size"].default == "32"
    assert "batch_size: Number of tiles" in embed.docstring.value


def test_exported_names_come_from_a_list_or_a_stub_file(package: griffe.Module) -> None:
    assert "read_image" in exported_names(package) and "register_late" not in exported_names(package)
    assert "embed" in exported_names(package["inference"])
    assert exported_names(package["training"]) == []
