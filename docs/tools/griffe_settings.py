"""Extension of griffe: show functions that take settings with the arguments that their callers pass.

`takes_settings(EmbedSettings)` gives `embed(settings)` one argument for each field of `EmbedSettings` when the module
is imported. Griffe only reads the source, so this extension does the same there.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import MISSING, Field, fields
from typing import Any

import griffe

from stedfm_hf.runs.settings import with_arguments

_DECORATOR = "stedfm_hf.runs.settings.takes_settings"


class SettingsExtension(griffe.Extension):
    """Shows functions that take settings as their callers see them, examples as code, and the types of results."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Adapt the sections `Example:`, `Returns:` and `Yields:` to griffe.

        Griffe calls the first section `Examples:`. In the others, it takes the text before a colon for the type; a
        colon at the start makes it show the annotated type.
        """
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"^((?:Returns|Yields):\n +)(?=[^:\s])", r"\1: ", text, flags=re.MULTILINE)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace the arguments and the docstring of a function that is decorated with `takes_settings`."""
        kind = _settings_of(func)
        if kind is None:
            return
        module = importlib.import_module(kind.rpartition(".")[0])
        settings = getattr(module, kind.rpartition(".")[2])
        func.parameters = griffe.Parameters(*map(_parameter, fields(settings)))
        text = func.docstring.value if func.docstring is not None else ""
        func.docstring = griffe.Docstring(with_arguments(text, settings), parent=func, parser="google")


def _settings_of(func: griffe.Function) -> str | None:
    """Return the full name of the settings of a function, or None if it takes none."""
    for each in func.decorators:
        if each.callable_path == _DECORATOR and isinstance(each.value, griffe.ExprCall):
            (kind,) = each.value.arguments
            return kind if isinstance(kind, str) else kind.canonical_path
    return None


def _parameter(each: Field[Any]) -> griffe.Parameter:
    default = None if each.default is MISSING else repr(each.default)
    if callable(each.default_factory):
        default = repr(each.default_factory())
    annotation = each.type if isinstance(each.type, str) else each.type.__name__
    kind = griffe.ParameterKind.positional_or_keyword
    return griffe.Parameter(each.name, annotation=annotation, kind=kind, default=default)
