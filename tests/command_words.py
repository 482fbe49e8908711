"""Settings as the command line makes them of words, without running the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import typer

from stedfm_hf.runs import command_line

S = TypeVar("S")


def settings_from(kind: type[S], words: Sequence[str], *, recipes: Path | None = None) -> S:
    """Parse the words of a command.

    Args:
        kind: Class of the settings.
        words: Options and arguments.
        recipes: Folder of packaged recipes.
    """
    found: list[Any] = []
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    class Parsed(Exception):
        pass

    def keep(function: str, settings: Any) -> Any:
        found.append(settings)
        raise Parsed

    with patch.object(command_line, "call", keep):
        command_line.add_command(app, "parse", "", settings=kind, example="", recipes=recipes)
        try:
            app(list(words), standalone_mode=False)
        except typer.BadParameter as error:
            raise ValueError(error.format_message()) from error
        except Parsed:
            pass
    settings: S = found[0]
    return settings
