"""The generated reference: every command, option and exported name is there."""

from __future__ import annotations

import doctest
from dataclasses import fields

import griffe
import pytest

from docs.tools import cli_reference
from docs.tools.cli_reference import cli_pages, default_of, file_of, values
from docs.tools.public_names import exported_names, load_package, public_objects
from docs.tools.python_reference import python_pages
from stedfm_hf.cli import app
from stedfm_hf.inference.settings import EmbedSettings
from stedfm_hf.runs.command_line import Command, added_commands, flag_of
from stedfm_hf.runs.settings import option_of, types_of


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    return load_package()


@pytest.fixture(scope="module")
def pages(package: griffe.Module) -> dict[str, str]:
    return cli_pages(package)


@pytest.mark.parametrize(("name", "command"), [*added_commands(app)], ids=lambda each: str(each)[:40])
def test_every_option_of_a_command_is_in_its_page(name: str, command: Command, pages: dict[str, str]) -> None:
    text = pages[f"reference/cli/{file_of(name.split()[0])}"]
    assert command.example in text and f"stedfm {name}" in pages["reference/cli/index.md"]
    for each in fields(command.settings):
        if not option_of(each).extra:
            assert f"| `{flag_of(each)}`" in text


def test_the_exit_statuses_are_described(pages: dict[str, str]) -> None:
    assert all(f"\n| {status} | " in pages["reference/cli/index.md"] for status in (0, 1, 2, 130))


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("pooling", "`avg`, `token`, `patch`", "`avg`"),
        ("batch_size", "integer ≥ 1", "`32`"),
        ("model", "path", ""),
        ("output", "path", "`embeddings.parquet`"),
        ("tile_size", "`N`, `auto`, `none`", "`auto`"),
        ("overwrite", "", "off"),
    ],
)
def test_an_option_shows_its_values_and_default(name: str, value: str, default: str) -> None:
    (field,) = [each for each in fields(EmbedSettings) if each.name == name]
    assert values(option_of(field), types_of(EmbedSettings)[name]) == value
    assert default_of(field) == default


def test_a_text_becomes_a_cell_of_a_table() -> None:
    assert doctest.testmod(cli_reference).failed == 0


def test_every_exported_name_is_in_the_python_reference(package: griffe.Module) -> None:
    text = "\n".join(python_pages(package).values())
    blocks = {line.removeprefix("::: ") for line in text.splitlines() if line.startswith("::: ")}
    for module in [package, *package.modules.values()]:
        for name in exported_names(module):
            found = module[name]
            target = found.final_target if isinstance(found, griffe.Alias) else found
            places = {f"{module.path}.{name}", module.path, target.path, target.module.path}
            assert places & blocks or f"][{target.path}]" in text, f"{module.path}.{name}"


def test_the_types_of_results_are_those_of_the_annotations(package: griffe.Module) -> None:
    colons = 0
    for each in public_objects(package):
        if not isinstance(each, griffe.Function) or each.docstring is None or each.returns is None:
            continue
        for section in each.docstring.parse("google", returns_multiple_items=False, returns_named_value=False):
            if isinstance(section, griffe.DocstringSectionReturns):
                colons += ": " in section.value[0].description
                assert str(section.value[0].annotation) == str(each.returns), each.path
    assert colons > 10


def test_every_block_of_the_python_reference_exists(package: griffe.Module) -> None:
    text = "\n".join(python_pages(package).values())
    for line in text.splitlines():
        if line.startswith("::: "):
            assert package[line.removeprefix("::: stedfm_hf.")] is not None
