"""Every command of the command line, found in the app, and the settings that commands are made of."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import typer

from stedfm_hf.cli import app


def commands(group: typer.Typer = app) -> list[tuple[str, ...]]:
    """Words of every command, such as `("data", "build")`."""
    found: list[tuple[str, ...]] = []
    for command in group.registered_commands:
        found.append((command.name or str(getattr(command.callback, "__name__", "")),))
    for each in group.registered_groups:
        if each.typer_instance is not None:
            name = str(each.typer_instance.info.name)
            found += [(name, *words) for words in commands(each.typer_instance)]
    return found


def settings_of_commands() -> list[type]:
    """Every class of settings in the package: those decorated with `@settings`."""
    root = Path(__file__).parents[1]
    found: list[type] = []
    for path in sorted((root / "stedfm_hf").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and "settings" in map(ast.unparse, node.decorator_list):
                module = ".".join(path.relative_to(root).with_suffix("").parts)
                found.append(getattr(importlib.import_module(module), node.name))
    return found
