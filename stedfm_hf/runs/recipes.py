"""Recipes: YAML or JSON files with values for the options of a command; options of the command line override them."""

from __future__ import annotations

import json
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import atomic_path
from stedfm_hf.runs.storage import as_path
from stedfm_hf.runs.wording import nearest

SUFFIXES = (".yaml", ".yml", ".json")
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def load_recipe(
    recipe: str | os.PathLike[str], fields: Mapping[str, Any], *, packaged: Path | None = None
) -> dict[str, Any]:
    """Read a recipe and check its keys and the types of its values.

    Args:
        recipe: Path of a YAML or JSON file, or name of a packaged recipe.
        fields: Types of the options, by name (`stedfm_hf.runs.settings.types_of`).
        packaged: Folder of the packaged recipes of the command.

    Returns:
        Values by option, converted to the type of the option.

    Raises:
        UserError: If the recipe does not exist or is not a mapping, or a key is unknown or has a wrong type.
    """
    from huggingface_hub.dataclasses import type_validator

    path = _find(os.fspath(recipe), packaged)
    values: dict[str, Any] = {}
    for key, value in _read(path).items():
        name = str(key).replace("-", "_")
        if name not in fields:
            raise UserError(f"{path}: {key} is not an option{nearest(name, fields)}")
        values[name] = _fit(value, fields[name])
        try:
            type_validator(name, values[name], fields[name])
        except TypeError as error:
            raise UserError(f"{path}: {key} is {value!r}, but must be {_in_words(fields[name])}") from error
    return values


def recipe_names(packaged: Path | None) -> list[str]:
    """Return the names of the recipes in a folder."""
    return [] if packaged is None else sorted(path.stem for path in packaged.glob("*.yaml"))


def write_recipe(path: str | os.PathLike[str], values: Mapping[str, Any], *, note: str = "") -> None:
    """Write a recipe as YAML, atomically."""
    import yaml

    text = f"# {' '.join(note.split())}\n" if note else ""
    text += yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _find(recipe: str, packaged: Path | None) -> Path:
    """Return the path of a recipe: a packaged one of this name, else a YAML or JSON file.

    Raises:
        UserError: If there is neither; the message suggests a similar name.
    """
    names = recipe_names(packaged)
    if packaged is not None and recipe in names:
        return packaged / f"{recipe}.yaml"
    path = Path(recipe)
    if path.is_file() and path.suffix in SUFFIXES:
        return path
    if path.suffix in SUFFIXES:
        raise UserError(f"recipe {recipe}: there is no such file; check the path")
    choices = f"{', '.join(names)}, or " if names else ""
    files = f"a file ({', '.join(SUFFIXES)})"
    raise UserError(f"recipe {recipe!r} is unknown{nearest(recipe, names)}; give {choices}{files}")


def _read(path: Path) -> dict[Any, Any]:
    """Read the values of a recipe; a UserError says why a file cannot be read or is not a mapping."""
    from stedfm_hf.runs.yaml_text import load_yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else load_yaml(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is not valid {path.suffix[1:].upper()} ({reason}); correct it there") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: is not a recipe; it must hold lines like `mask_ratio: 0.75`")
    return values


def _fit(value: Any, hint: Any) -> Any:
    """Convert a value to the type of its option: YAML reads 1e-4 as text, and 1 is valid for a float."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return _fit(value, kinds[0]) if len(kinds) == 1 else value
    if get_origin(hint) is list and isinstance(value, list):
        return [_fit(item, get_args(hint)[0]) for item in value]
    if hint is Path and isinstance(value, str):
        return as_path(value)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _in_words(hint: Any) -> str:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return " or ".join(_WORDS.get(get_origin(kind) or kind, getattr(kind, "__name__", str(kind))) for kind in kinds)
