"""Pages of the command line, generated from the settings of the commands."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from inspect import getdoc
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import griffe

from docs.tools.public_names import exported_names
from stedfm_hf.cli import app
from stedfm_hf.runs.command_line import Command, added_commands, flag_of
from stedfm_hf.runs.recipes import recipe_names
from stedfm_hf.runs.settings import Option, option_of, types_of

FOLDER = "reference/cli"
_TYPES = {int: "integer", float: "number", str: "text", Path: "path"}
_JSON = "Print the result as JSON, for programs."


def cli_pages(package: griffe.Module) -> dict[str, str]:
    """Return the Markdown of every page by its path in the site.

    Args:
        package: The package, read by griffe.
    """
    pages: dict[str, list[tuple[str, Command]]] = {}
    for name, command in added_commands(app):
        pages.setdefault(name.split()[0], []).append((name, command))
    texts = {f"{FOLDER}/{file_of(page)}": _page(page, commands, package) for page, commands in pages.items()}
    return {f"{FOLDER}/index.md": _index(pages, package), **texts}


def file_of(page: str) -> str:
    """Return the name of the file of a command or group; `index.md` is the list of all commands.

    Example:
        >>> file_of("embed"), file_of("index")
        ('embed.md', 'index-command.md')
    """
    return "index-command.md" if page == "index" else f"{page}.md"


def _index(pages: dict[str, list[tuple[str, Command]]], package: griffe.Module) -> str:
    rows = [
        f"| [`stedfm {name}`]({file_of(page)}{_anchor(name)}) | {summary(command)} |"
        for page, commands in pages.items()
        for name, command in commands
    ]
    statuses = [
        (int(str(each.value)), each.docstring.value)
        for name, each in package["runs.errors"].members.items()
        if name.startswith("EXIT_") and each.docstring is not None
    ]
    return "\n".join(
        [
            "# Command line",
            "",
            "Every command prints its result on standard output, and progress and notes on standard error.",
            "`stedfm COMMAND --help` prints what these pages show.",
            "",
            "| command | what it does |",
            "|---|---|",
            *rows,
            "",
            "## Exit status",
            "",
            "| status | meaning |",
            "|---|---|",
            *(f"| {number} | {markdown(text)} |" for number, text in statuses),
            "",
            "## Values of options",
            "",
            "- Options take hyphens or underscores: `--batch-size 8` and `--batch_size 8` are the same.",
            "- An option with several values takes them one after another: `--seeds 0 1 2`.",
            "- `--recipe FILE` reads options from a YAML or JSON file; options on the command line override it.",
            "- Errors are one line. `STEDFM_DEBUG=1` prints the traceback instead.",
            "",
        ]
    )


def _page(page: str, commands: list[tuple[str, Command]], package: griffe.Module) -> str:
    if [name for name, _ in commands] == [page]:
        return f"# stedfm {page}\n\n{_command(*commands[0], package, level=2)}"
    parts = [f"## stedfm {name}\n\n{_command(name, command, package, level=3)}" for name, command in commands]
    return "\n".join([f"# stedfm {page}", "", *parts])


def _command(name: str, command: Command, package: griffe.Module, *, level: int) -> str:
    known = fields(command.settings)
    arguments = [each for each in known if option_of(each).positional]
    options = [each for each in known if not option_of(each).positional and not option_of(each).extra]
    slug, hashes = name.replace(" ", "-"), "#" * level
    lines = [_help(command), "", "```bash", command.example, "```", ""]
    lines += [f"Usage: `{usage(name, arguments)}`", "", f"In Python: {_python(command, package)}", ""]
    if arguments:
        lines += [f"{hashes} Arguments {{ #{slug}-arguments }}", "", "| argument | meaning |", "|---|---|"]
        lines += [f"| `{flag_of(each)}` | {markdown(option_of(each).help)} |" for each in arguments]
        lines.append("")
    hints = types_of(command.settings)
    lines += [
        f"{hashes} Options {{ #{slug}-options }}",
        "",
        "| option | meaning | value | default |",
        "|---|---|---|---|",
    ]
    for each in sorted(options, key=lambda one: not is_required(one)):
        facts = option_of(each)
        cells = (_flags(slug, each), markdown(facts.help), values(facts, hints[each.name]), default_of(each))
        lines.append(f"| {' | '.join(cells)} |")
    lines += _common_rows(slug, command)
    if any(option_of(each).extra for each in known):
        extra = next(option_of(each) for each in known if option_of(each).extra)
        lines += ["", f"Further options: {markdown(extra.help)}"]
    return "\n".join([*lines, ""])


def _common_rows(slug: str, command: Command) -> Iterator[str]:
    if any(option_of(each).affects_result for each in fields(command.settings)):
        names = recipe_names(command.recipes) if command.recipes is not None else []
        packaged = f"{', '.join(f'`{each}`' for each in names)}, or a" if names else "A"
        meaning = f"{packaged} YAML or JSON file with values for these options."
        yield f"| `--recipe`{{ #{slug}--recipe }} | {meaning} | path | |"
    yield f"| `--json`{{ #{slug}--json }} | {_JSON} | | off |"


def summary(command: Command) -> str:
    """Return the first sentence of the help of a command."""
    return markdown((getdoc(command.settings) or "").split("\n")[0])


def usage(name: str, arguments: list[Field[Any]]) -> str:
    """Return how a command is called.

    Example:
        >>> usage("doctor", [])
        'stedfm doctor [OPTIONS]'
    """
    words = [f"{flag_of(each)}{'...' if option_of(each).multiple else ''}" for each in arguments]
    return " ".join(["stedfm", name, *words, "[OPTIONS]"])


def values(known: Option, hint: Any) -> str:
    """Return what an option takes: its choices, or its type and range.

    Args:
        known: The option.
        hint: Type of its field.
    """
    if known.choices:
        return ", ".join(f"`{each}`" for each in known.choices) + (", ..." if known.pattern else "")
    if known.metavar:
        return ", ".join(f"`{each}`" for each in known.metavar.split("|"))
    text = _type_name(hint)
    low, high = known.minimum, known.maximum
    if low is not None and high is not None:
        return f"{text}, {low} to {high}"
    return text + (f" ≥ {low}" if low is not None else "") + (f" ≤ {high}" if high is not None else "")


def default_of(of_field: Field[Any]) -> str:
    """Return the default of an option on the command line, or that it is required."""
    known = option_of(of_field)
    default = known.cli_default
    if default is None and callable(of_field.default_factory):
        default = of_field.default_factory()
    if default is None and of_field.default is not MISSING:
        default = of_field.default
    if is_required(of_field) and default is None:
        return "**required**"
    if isinstance(default, bool):
        return "on" if default else "off"
    if default is None or default == [] or default == ():
        return ""
    if isinstance(default, list | tuple):
        return f"`{' '.join(map(str, default))}`"
    return f"`{default}`"


def is_required(of_field: Field[Any]) -> bool:
    """Return whether an option has no default."""
    return (
        of_field.default is MISSING and of_field.default_factory is MISSING and option_of(of_field).cli_default is None
    )


def markdown(text: str) -> str:
    r"""Escape a text for a cell of a table, except what is between backticks.

    Example:
        >>> print(markdown("*.csv or `a_b`"))
        \*.csv or `a_b`
    """
    parts = " ".join(text.split()).split("`")
    escaped = [part if number % 2 else re.sub(r"([*_<|\[\]])", r"\\\1", part) for number, part in enumerate(parts)]
    return "`".join(escaped)


def _help(command: Command) -> str:
    return (getdoc(command.settings) or "").partition("\n\nExample:")[0]


def _python(command: Command, package: griffe.Module) -> str:
    """Link the function of a command, by the shortest name that it can be imported by."""
    path = command.function.replace(":", ".")
    _, module, *_, name = path.split(".")
    found = package[module]
    shown = f"{found.path}.{name}" if found.is_module and name in exported_names(found) else path
    return f"[`{shown}`][{path}]"


def _anchor(name: str) -> str:
    return "" if " " not in name else f"#stedfm-{name.replace(' ', '-')}"


def _flags(slug: str, of_field: Field[Any]) -> str:
    known, first = option_of(of_field), flag_of(of_field)
    flags = [*(known.flags or (first,))]
    if of_field.default is True:
        flags.insert(1, f"--no-{first[2:]}")
    anchor = f"{{ #{slug}{first} }}"
    return ", ".join([f"`{flags[0]}`{anchor}", *(f"`{each}`" for each in flags[1:])])


def _type_name(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [_type_name(each) for each in get_args(hint) if each is not type(None)]
        kinds = [each for each in dict.fromkeys(kinds) if not (each == "text" and "path" in kinds)]
        return " or ".join(filter(None, kinds))
    if get_origin(hint) is list:
        return f"{_type_name(get_args(hint)[0])} ..."
    if get_origin(hint) is tuple:
        return " ".join(_type_name(each) for each in get_args(hint) if each is not ...)
    return "" if hint is bool else _TYPES.get(hint, "text")
