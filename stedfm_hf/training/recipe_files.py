"""Recipes: YAML or JSON files with values for the arguments of a training; flags override them (ours)."""

from __future__ import annotations

import difflib
import json
import os
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from huggingface_hub.dataclasses import type_validator

from stedfm_hf.runs import UserError, atomic_path

FOLDER = Path(__file__).parent / "recipes"
SUFFIXES = (".yaml", ".yml", ".json")
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package.

    Example:
        >>> "small" in recipe_names()
        True
    """
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(recipe: str | os.PathLike[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a recipe and checks its keys and the types of its values.

    Args:
        recipe: name of a recipe of the package, or a YAML or JSON file.
        fields: keys that there are, with their types.

    Returns:
        Values by key, numbers in the type of the field.

    Raises:
        UserError: no such recipe, no mapping, an unknown key or a wrong type; names the file, the key and the nearest
            one that there is.
    """
    path = _find(os.fspath(recipe))
    values: dict[str, Any] = {}
    for key, value in _read(path).items():
        name = str(key).replace("-", "_")
        if name not in fields:
            raise UserError(f"{path}: {key} is no argument{nearest(name, fields)}")
        values[name] = _fit(value, fields[name])
        try:
            type_validator(name, values[name], fields[name])
        except TypeError as error:
            raise UserError(f"{path}: {key} is {value!r}, but must be {_in_words(fields[name])}") from error
    return values


def write_recipe(path: str | os.PathLike[str], values: Mapping[str, Any], *, note: str = "") -> None:
    """Writes a recipe as YAML, whole or not at all.

    Args:
        path: the file.
        values: plain data by key.
        note: a line for the reader, above them.
    """
    text = f"# {' '.join(note.split())}\n" if note else ""
    text += yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def nearest(word: str, known: Iterable[str]) -> str:
    """Words that offer the nearest known name, or nothing where none is near."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _find(recipe: str) -> Path:
    if recipe in recipe_names():
        return FOLDER / f"{recipe}.yaml"
    path = Path(recipe)
    if path.is_file() and path.suffix in SUFFIXES:
        return path
    if path.suffix in SUFFIXES:
        raise UserError(f"recipe {recipe}: there is no such file; check the path")
    raise UserError(
        f"recipe {recipe!r} is unknown{nearest(recipe, recipe_names())}; give {', '.join(recipe_names())}, or a "
        f"file ({', '.join(SUFFIXES)})"
    )


def _read(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is no {path.suffix[1:].upper()} ({reason}); mend it there") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: is no recipe; it must hold lines like `mask_ratio: 0.75`")
    return values


def _fit(value: Any, hint: Any) -> Any:
    """A number where one is meant: 1 is one for a float, too, and YAML takes 1e-4 for a text."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return _fit(value, kinds[0]) if len(kinds) == 1 else value
    if get_origin(hint) is list and isinstance(value, list):
        return [_fit(item, get_args(hint)[0]) for item in value]
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _in_words(hint: Any) -> str:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return " or ".join(_WORDS.get(get_origin(kind) or kind, getattr(kind, "__name__", str(kind))) for kind in kinds)
