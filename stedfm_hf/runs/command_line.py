"""Command line of a command, generated from its settings: options, recipe, result and exit status."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from inspect import Parameter, Signature, getdoc
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from stedfm_hf.runs import options
from stedfm_hf.runs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_ITEMS_FAILED, EXIT_USAGE, UserError
from stedfm_hf.runs.memory import keep_freed_memory
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.secret_detection import without_secrets
from stedfm_hf.runs.settings import Option, option_of, types_of
from stedfm_hf.runs.storage import as_path
from stedfm_hf.runs.threads import limit_spinning
from stedfm_hf.runs.wording import nearest


@dataclass(frozen=True)
class Command:
    """A command of the command line, as `add_command` added it.

    Attributes:
        name: Name of the command, without the names of its groups.
        function: The library function as `module:name`.
        settings: Class of the settings.
        example: Command line shown in the help.
        recipes: Folder of packaged recipes, where there are some.
    """

    name: str
    function: str
    settings: type
    example: str
    recipes: Path | None = None


class CommandGroup(TyperGroup):
    """Group in which the name of a command may have two words, such as `pretrain` and `pretrain generation`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names for the help; a name of two words is in the help of its first word."""
        return [name for name in super().list_commands(ctx) if " " not in name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command by the first two words, or else by the first."""
        name = " ".join(args[:2])
        if len(args) > 1 and (command := self.get_command(ctx, name)) is not None:
            return name, command, args[2:]
        return super().resolve_command(ctx, args)


_METAVARS: dict[Any, str] = {str: "TEXT", int: "N", float: "X", Path: "PATH"}


def add_command(
    app: typer.Typer, name: str, function: str, *, settings: type, example: str, recipes: Path | None = None
) -> None:
    """Add a command whose options are the fields of its settings.

    Args:
        app: Typer app to which the command is added.
        name: Name of the command.
        function: Library function as `module:name`, imported after the arguments are checked. It takes the settings
            (`stedfm_hf.runs.settings.takes_settings`) and returns a `Result`.
        settings: Class of the settings. Its docstring is the help; its module imports neither torch nor transformers.
        example: Command line shown in the help.
        recipes: Folder of packaged recipes, if there are any.
    """
    by_name = {each.name: each for each in fields(settings)}
    extra = next((each for each in by_name if option_of(by_name[each]).extra), None)
    parameters = [Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    hints = types_of(settings)
    shown = sorted((each for each in by_name.values() if each.name != extra), key=lambda each: not _is_required(each))
    parameters += [_parameter(each, hints[each.name]) for each in shown]
    if any(option_of(each).affects_result for each in by_name.values()):
        parameters.append(_recipe_parameter(recipes))
    parameters.append(_JSON)

    def run(context: typer.Context, **values: Any) -> None:
        """Combine the defaults, the recipe and the given options (the last one wins), call the function, and exit."""
        as_json, recipe = values.pop("as_json"), values.pop("recipe", None)
        given = {name: value for name, value in values.items() if not _is_default(context, name)}
        parsed = {each.name: option_of(each).cli_default for each in by_name.values() if option_of(each).cli_default}
        if recipe is not None:
            from stedfm_hf.runs.recipes import load_recipe

            parsed |= load_recipe(recipe, hints, packaged=recipes)
        parsed |= given
        if extra is not None:
            parsed[extra] = parsed.get(extra, {}) | _extra_options(context.args, [*by_name])
        finish(call(function, make_settings(settings, parsed)), as_json)

    run.__doc__ = (getdoc(settings) or "").partition("\n\nExample:")[0]
    # Typer reads the signature and the documentation `command`; the type of functions has neither attribute.
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.command = Command(name, function, settings, example, recipes)  # type: ignore[attr-defined]
    context_settings = {} if extra is None else {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, cls=_command_class(settings), epilog=f"Example: {example}", context_settings=context_settings)(
        run
    )


def added_commands(app: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Command]]:
    """Yield the commands of an app and of its groups, each with its full name.

    Args:
        app: The app.
        prefix: Names of the groups that the app is in, each followed by a space.
    """
    for each in app.registered_commands:
        command = getattr(each.callback, "command", None)
        if command is not None:
            yield prefix + command.name, command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from added_commands(group.typer_instance, f"{prefix}{group.typer_instance.info.name} ")


def make_settings(kind: type, values: dict[str, Any]) -> Any:
    """Make settings from the values of the command line."""
    for each in fields(kind):
        if each.name not in values and _is_required(each):
            raise UserError(f"{flag_of(each)} is missing: {option_of(each).help}")
    hints = types_of(kind)
    paths = {name: as_path(text) for name, text in values.items() if _is_path(hints[name]) and isinstance(text, str)}
    return kind(**values | paths)


def _is_path(hint: Any) -> bool:
    return _without_none(hint) is Path


def call(function: str, settings: Any) -> Any:
    """Import a function that takes settings, and call it.

    Args:
        function: Import path, as `module:name`.
        settings: Settings of the command.
    """
    module, _, name = function.partition(":")
    takes_fields = getattr(importlib.import_module(module), name)
    return takes_fields.__wrapped__(settings)  # the function that takes the settings as one object


def finish(result: Result, as_json: bool) -> None:
    """Print the result of a command, and exit with its status.

    Raises:
        Exit: Always.
    """
    if as_json:
        print_json(result.to_json())
    elif text := result.summary():
        print(without_secrets(text))
    raise typer.Exit(result.exit_status)


def run_app(app: Callable[..., Any], args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; errors that a user can fix are printed on one line.

    Args:
        app: Typer app.
        args: Arguments of the command line; by default those of the process.
    """
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its errors become the messages of commands
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that cannot show a letter must not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        app(None if args is None else list(args), prog_name="stedfm")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_DONE if end.code is None else EXIT_ITEMS_FAILED
        if status == EXIT_INTERRUPTED:
            print_note("interrupted; run the same command again to resume")
        return status
    except (ValueError, OSError, ImportError) as error:
        # An OSError comes from the system (permission, space, network), an ImportError from the installation; any
        # other ValueError is a bug, whose traceback is needed.
        expected = isinstance(error, OSError | ImportError | UserError) or type(error).__name__ == "ImageReadError"
        if os.environ.get("STEDFM_DEBUG") or not expected:
            raise
        hint = " (run `stedfm doctor` to find the cause)" if isinstance(error, ImportError) else ""
        print_note(f"error: {one_line(error)}{hint}")
        return EXIT_USAGE
    return EXIT_DONE


def run_script(name: str, function: str, *, settings: type, recipes: Path | None = None) -> int:
    """Run one command as a script that a launcher starts; only the first process prints the result.

    Args:
        name: Name of the command, such as `pretrain`.
        function: As for `add_command`.
        settings: As for `add_command`.
        recipes: As for `add_command`.
    """
    limit_spinning()
    keep_freed_memory()
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    add_command(app, name, function, settings=settings, example=f"torchrun {sys.argv[0]} ...", recipes=recipes)
    if int(os.environ.get("RANK", "0")):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 -- until the process ends
    return run_app(app)


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def print_json(value: Any) -> None:
    """Print plain data as JSON."""
    print(without_secrets(json.dumps(value, indent=2, ensure_ascii=False)))


def flag_of(of_field: Field[Any]) -> str:
    """Return the first flag of an option, or the placeholder of a positional one."""
    option = option_of(of_field)
    if option.positional:
        return option.metavar or of_field.name.upper()
    return option.flags[0] if option.flags else "--" + of_field.name.replace("_", "-")


def _command_class(settings: type) -> type[TyperCommand]:
    """Make the class of a command, which also takes `--batch_size 8`, and `--seeds 1 2` for two values.

    Where the command has positional arguments, only numbers may follow each other: another word may be an argument.
    The help lists the options under the headings of their groups.
    """
    hints, named = types_of(settings), [each for each in fields(settings) if not option_of(each).positional]
    lists = [each for each in named if option_of(each).multiple or get_origin(_without_none(hints[each.name])) is list]
    positional = any(option_of(each).positional for each in fields(settings))
    flags = {flag for each in lists for flag in (option_of(each).flags or (flag_of(each),))}
    pairs = {
        flag_of(each): option_of(each) for each in named if _without_none(hints[each.name]) == tuple[float, float]
    }

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            words = [_hyphenated(word) for word in args]
            for flag, option in pairs.items():
                _check_pair(words, flag, option)
            return super().parse_args(ctx, _repeat_flags(words, flags, numbers_only=positional))

        def format_options(self, ctx: Any, formatter: Any) -> None:
            """Write the options under the heading of their group: arguments and input first, general ones last."""
            sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], options.INPUT: []}
            for parameter in self.get_params(ctx):
                if (record := parameter.get_help_record(ctx)) is None:
                    continue
                if isinstance(parameter, TyperArgument):
                    sections["Arguments"].append((str(parameter.metavar), record[1]))
                else:
                    heading = getattr(parameter, "rich_help_panel", None) or options.GENERAL
                    sections.setdefault(heading, []).append(record)
            for last in (options.COMPUTATION, options.GENERAL):
                sections[last] = sections.pop(last, [])
            for heading, records in sections.items():
                if records:
                    with formatter.section(heading):
                        formatter.write_dl(records)

        def collect_usage_pieces(self, ctx: Any) -> list[str]:
            return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    return Command


def _repeat_flags(words: Sequence[str], flags: Collection[str], *, numbers_only: bool) -> list[str]:
    """Repeat the flag of an option with several values before each value.

    Example:
        >>> _repeat_flags(["--seeds", "1", "2", "--json"], ["--seeds"], numbers_only=True)
        ['--seeds', '1', '--seeds', '2', '--json']
    """
    repeated: list[str] = []
    flag: str | None = None
    for previous, word in zip(["", *words], words, strict=False):
        if word.startswith("-") and not _is_number(word):
            flag = word if word in flags else None
        elif flag is not None and previous != flag:
            if numbers_only and not _is_number(word):
                flag = None
            else:
                repeated.append(flag)
        repeated.append(word)
    return repeated


def _check_pair(words: Sequence[str], flag: str, option: Option) -> None:
    """Refuse an option of two numbers that has one or none.

    Raises:
        UserError: One of the two words after the flag is not a number.
    """
    if flag not in words:
        return
    start = words.index(flag) + 1
    values = [word for word in words[start : start + 2] if _is_number(word)]
    if len(values) < 2:
        given = f"only {values[0]}" if values else "none"
        raise UserError(f"{flag} takes two numbers, {flag} {option.metavar or 'LOW HIGH'}, but {given} is given")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _hyphenated(word: str) -> str:
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _parameter(of_field: Field[Any], hint: Any) -> Parameter:
    """Return the parameter of an option; its default is used for the help only."""
    option = option_of(of_field)
    kind = _plain_type(hint, option.multiple or option.parse is not None)
    is_list = option.multiple or get_origin(_without_none(hint)) is list
    annotation: Any = types.GenericAlias(list, (kind,)) if is_list else kind
    required = _is_required(of_field) and option.cli_default is None
    if option.positional:
        info = typer.Argument(... if required else None, metavar=flag_of(of_field), help=option.help)
        return Parameter(of_field.name, Parameter.KEYWORD_ONLY, default=info, annotation=annotation)
    default = option.cli_default or (None if of_field.default is MISSING else of_field.default)
    if callable(of_field.default_factory):
        default = of_field.default_factory() or None
    flags = list(option.flags) or [flag_of(of_field)]
    if kind is bool:
        flags = [f"{flags[0]}/--no-{flags[0][2:]}", *flags[1:]] if default else flags
    else:
        annotation = annotation | None
    by_type = _METAVARS.get(Path if Path in (hint, *get_args(hint)) else kind)
    metavar = option.metavar or ("|".join(option.choices) if 0 < len(option.choices) < 6 else by_type)
    text = option.help + (" [required]" if required else "")
    info = typer.Option(
        default,
        *flags,
        metavar=metavar,
        help=text,
        show_default=default is not None and default is not False,
        rich_help_panel=option.group,
    )
    return Parameter(of_field.name, Parameter.KEYWORD_ONLY, default=info, annotation=annotation)


def _is_required(of_field: Field[Any]) -> bool:
    return of_field.default is MISSING and of_field.default_factory is MISSING


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else hint
    return hint


def _plain_type(hint: Any, is_text: bool) -> Any:
    """Return the type to which the command line converts a word."""
    if is_text:
        return str
    hint = _without_none(hint)
    if get_origin(hint) is list:
        return _plain_type(get_args(hint)[0], False)
    if get_origin(hint) is tuple or (hint in (bool, *_METAVARS) and hint is not Path):
        return hint
    return str  # also of a path: `make_settings` converts it, because a URL is not a local path


_JSON = Parameter(
    "as_json",
    Parameter.KEYWORD_ONLY,
    default=typer.Option(False, "--json", help="Print the result as JSON."),
    annotation=bool,
)


def _recipe_parameter(recipes: Path | None) -> Parameter:
    from stedfm_hf.runs.recipes import recipe_names

    named = f"{', '.join(recipe_names(recipes))}, or a" if recipes is not None else "A"
    text = f"{named} YAML or JSON file with values of these options; the command line overrides it."
    info = typer.Option(None, "--recipe", metavar="FILE", help=text)
    return Parameter("recipe", Parameter.KEYWORD_ONLY, default=info, annotation=str | None)


def _is_default(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is None or source.name == "DEFAULT"


def _extra_options(words: Sequence[str], known: Sequence[str]) -> dict[str, list[str]]:
    """Collect unknown options: values by name."""
    values: dict[str, list[str]] = {}
    name: str | None = None
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            name = flag[2:].replace("-", "_")
            values[name] = [value] if equals else []
        elif name is None:
            raise UserError(f"unexpected argument {word!r}{nearest(word, known)}")
        else:
            values[name].append(word)
    return values
