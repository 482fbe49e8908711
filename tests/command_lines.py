"""Every command of the command line, found in the app itself."""

from __future__ import annotations

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
