"""Settings of a command: one frozen dataclass from which options, arguments, recipe and manifest are generated.

The fields give the options of the command line (`stedfm_hf.cli`), the keyword arguments of the library function
(`takes_settings`), the recipe file (`load_recipe`) and the settings in the manifest (`result_settings`). To add an
option to a command, add a field. Modules that define settings import neither torch nor transformers.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ParamSpec, TypeVar, dataclass_transform, get_type_hints

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.storage import STORES, as_path, is_remote, protocol_of
from stedfm_hf.runs.wording import nearest

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")
P = ParamSpec("P")
_KEY = "stedfm"


@dataclass(frozen=True)
class Option:
    """Properties of an option, in addition to the name, type and default of its field.

    Attributes:
        help: Noun phrase for the help and the documentation.
        affects_result: Whether the result depends on the value; if not, it only sets how or where the work is done.
        positional: Whether it is a positional argument of the command line.
        multiple: Whether the command line accepts more than one value (always true for lists).
        extra: Whether it collects unknown options, as text by name.
        group: Heading of the help under which the command line lists it.
        flags: Flags of the command line; by default the name with hyphens.
        metavar: Placeholder of the value in the help.
        choices: Allowed values; empty for any.
        pattern: Regular expression of other allowed values.
        minimum: Smallest allowed number.
        maximum: Largest allowed number.
        cli_default: Default of the command line, if it differs from that of the function.
        parse: Function that converts a text of the command line, a recipe or Python; by default, the command line
            converts it to the type of the field.
        check: Function that refuses a value with a UserError.
        storage: Whether the path may be in an object store; a URL becomes a path when the settings are made. URLs of
            stores are refused for other options.
    """

    help: str
    affects_result: bool = True
    positional: bool = False
    multiple: bool = False
    extra: bool = False
    group: str = "Options"
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    minimum: float | None = None
    maximum: float | None = None
    cli_default: Any = None
    parse: Callable[[str], Any] | None = None
    check: Callable[[Any], None] | None = None
    storage: bool = False


def option(default: Any = MISSING, *, default_factory: Any = MISSING, help: str, **facts: Any) -> Any:
    """Define an option of a command.

    Args:
        default: Default value; without one the option is required.
        default_factory: Function that makes a mutable default value.
        help: Noun phrase that describes the value.
        facts: Other attributes of `Option`.
    """
    metadata = {_KEY: Option(help, **facts)}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def argument(default: Any = MISSING, *, help: str, **facts: Any) -> Any:
    """Define a positional argument of a command; see `option`."""
    return field(default=default, metadata={_KEY: Option(help, positional=True, **facts)})


@dataclass_transform(frozen_default=True)
def settings(kind: type[T]) -> type[T]:
    """Turn a class into the settings of a command: a frozen dataclass that converts and checks its values.

    After the fields are converted and checked, a method `check` of the class may refuse combinations of values.

    Raises:
        UserError: If an object is made with a value that its field does not allow.

    Example:
        >>> @settings
        ... class ShowSettings:
        ...     path: str = argument(help="File to show.")
        ...     style: str = option("plain", choices=("plain", "bold"), help="Style of the text.")
        >>> ShowSettings("a.tif").style
        'plain'
        >>> try:
        ...     ShowSettings("a.tif", style="blod")
        ... except UserError as error:
        ...     print(error)
        style 'blod' is unknown; did you mean bold?
    """

    def check_all(self: Any) -> None:
        for each in fields(self):
            known, given = option_of(each), getattr(self, each.name)
            value = _located(each.name, _parsed(given, known), known)
            if value is not given:
                object.__setattr__(self, each.name, value)  # the class is frozen, and this is its construction
            check_value(each.name, value, known)
        check = getattr(self, "check", None)
        if check is not None:
            check()

    # The class becomes a dataclass in the next line; before, its type has no such method.
    kind.__post_init__ = check_all  # type: ignore[attr-defined]
    return dataclass(frozen=True)(kind)


def option_of(of_field: dataclasses.Field[Any]) -> Option:
    """Return the option of a field."""
    found: Option = of_field.metadata[_KEY]
    return found


def _parsed(value: Any, known: Option) -> Any:
    """Convert a text, or the texts in a list, with the function of the option; other values are not changed."""
    parse = known.parse
    if parse is None:
        return value
    if isinstance(value, list):
        return [parse(each) if isinstance(each, str) else each for each in value]
    return parse(value) if isinstance(value, str) else value


def check_value(name: str, value: Any, known: Option) -> None:
    """Refuse a value, or an element of a list, that is not among the choices or is out of range.

    Raises:
        UserError: If a value is not allowed; the message names the option, the value and the allowed values.
    """
    for each in value if isinstance(value, list | tuple) else (value,):
        if each is None:
            continue
        if known.choices and each not in known.choices and not re.fullmatch(known.pattern, str(each)):
            near = nearest(str(each), known.choices)
            raise UserError(f"{name} {each!r} is unknown{near or f'; choose {_or(known.choices)}'}")
        if isinstance(each, int | float) and not isinstance(each, bool):
            _check_range(name, each, known)
        if known.check is not None:
            known.check(each)


def _located(name: str, value: Any, known: Option) -> Any:
    """Convert a URL, or those in a list, to paths.

    Raises:
        UserError: If the option takes no path in an object store.
    """
    if isinstance(value, list | tuple):
        return type(value)(_located(name, each, known) for each in value) if any(map(is_remote, value)) else value
    if not is_remote(value):
        return value
    if known.storage:
        return as_path(value)
    if protocol_of(value) not in STORES:  # an address of weights or of a scheduler, or a data set of the Hub
        return value
    raise UserError(f"{name} {value}: must be on this machine, not in a store; copy it, and give the local path")


def _check_range(name: str, number: float, known: Option) -> None:
    low, high = known.minimum, known.maximum
    if not math.isfinite(number):
        raise UserError(f"{name} is {number}; it must be a finite number")
    if (low is None or number >= low) and (high is None or number <= high):
        return
    at_most = f"at most {high}" if low is None else f"{low} to {high}"
    allowed = f"at least {low}" if high is None else at_most
    raise UserError(f"{name} is {number}; it must be {allowed}")


def _or(choices: Sequence[str]) -> str:
    return ", ".join(choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else choices[0]


def result_settings(values: Any) -> dict[str, Any]:
    """Return the settings that affect the result, which must agree when a run is resumed."""
    return {each.name: getattr(values, each.name) for each in fields(values) if option_of(each).affects_result}


def execution_settings(values: Any) -> dict[str, Any]:
    """Return the settings that do not affect the result, without the positional ones."""
    return {
        each.name: getattr(values, each.name)
        for each in fields(values)
        if not option_of(each).affects_result and not option_of(each).positional
    }


def types_of(kind: type) -> dict[str, Any]:
    """Return the type of every field."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def takes_settings(kind: Callable[P, S]) -> Callable[[Callable[[S], R]], Callable[P, R]]:
    """Wrap a function of settings so that it takes their fields as arguments.

    `function.__wrapped__` still takes the settings.

    The section `Args:` of its docstring is generated from the help of the fields.

    Args:
        kind: Class of the settings.

    Example:
        >>> @settings
        ... class AddSettings:
        ...     a: int = argument(help="First number.")
        ...     b: int = option(1, help="Second number.")
        >>> @takes_settings(AddSettings)
        ... def add(settings: AddSettings) -> int:
        ...     '''Add two numbers.'''
        ...     return settings.a + settings.b
        >>> add(2), add(2, b=3)
        (3, 5)
    """

    def decorate(run: Callable[[S], R]) -> Callable[P, R]:
        """Return the function with the signature and the docstring of its settings."""

        @functools.wraps(run)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return run(kind(*args, **kwargs))

        # `inspect.signature` reads this attribute, which the type of functions lacks.
        call.__signature__ = inspect.signature(kind).replace(  # type: ignore[attr-defined]
            return_annotation=run.__annotations__.get("return", inspect.Signature.empty)
        )
        call.__doc__ = with_arguments(inspect.getdoc(run) or "", kind)
        return call

    return decorate


def with_arguments(text: str, kind: Any) -> str:
    """Return a Google-style docstring with a section `Args:` before its first other section.

    Args:
        text: Docstring without that section.
        kind: Class of the settings, whose fields are the arguments.
    """
    if not fields(kind):
        return text
    wrap = textwrap.TextWrapper(115, initial_indent="    ", subsequent_indent="        ").fill
    section = "\n".join(["Args:", *(wrap(f"{each.name}: {option_of(each).help}") for each in fields(kind))])
    first = re.search(r"^(Returns|Raises|Yields|Source|Example|Examples):", text, flags=re.MULTILINE)
    at = len(text) if first is None else first.start()
    return f"{text[:at].rstrip()}\n\n{section}\n\n{text[at:]}".rstrip() + "\n"
