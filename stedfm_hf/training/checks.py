"""Checks of settings against the world: installed packages, files and the arguments of transformers; torch-free."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from stedfm_hf.runs import UserError
from stedfm_hf.runs.wording import nearest

DEEPSPEED_CONFIGS = Path(__file__).parent / "deepspeed_configs"


@cache
def training_argument_names() -> tuple[str, ...]:
    """Return the fields of `transformers.TrainingArguments`, read from its source: importing it takes seconds."""
    (kind,) = (each for each in _source("training_args.py").body if getattr(each, "name", "") == "TrainingArguments")
    assert isinstance(kind, ast.ClassDef)
    targets = (each.target for each in kind.body if isinstance(each, ast.AnnAssign))
    return tuple(each.id for each in targets if isinstance(each, ast.Name))


@cache
def tracker_names() -> tuple[str, ...]:
    """Return the trackers that `report_to` of transformers knows, read from its source."""
    for each in _source("integrations/integration_utils.py").body:
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "INTEGRATION_TO_CALLBACK":
            assert isinstance(each.value, ast.Dict)
            return tuple(str(key.value) for key in each.value.keys if isinstance(key, ast.Constant))
    raise AssertionError("this version of transformers has no INTEGRATION_TO_CALLBACK")


def _source(name: str) -> ast.Module:
    found = find_spec("transformers")
    assert found is not None and found.origin is not None
    return ast.parse((Path(found.origin).parent / name).read_text(encoding="utf-8"))


def check_argument_names(names: Iterable[str], own: Sequence[str]) -> None:
    """Refuse names that are neither an option of ours nor a field of `transformers.TrainingArguments`.

    Raises:
        UserError: Names the first of them and the nearest option.
    """
    for name in names:
        if name in own:
            raise UserError(f"{name} is an option of its own; give it outside of training_arguments")
        if name.removeprefix("no_") not in training_argument_names():
            raise UserError(f"{name} is not an option{nearest(name, [*own, *training_argument_names()])}")


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that do not exist or are not installed.

    Raises:
        UserError: Names the first of them.
    """
    for name in names:
        if name not in ("none", "all", *tracker_names()):
            raise UserError(
                f"report_to {name!r} is unknown{nearest(name, tracker_names())}; tensorboard is the usual one"
            )
        if name == "tensorboard":
            check_installed(name)


def check_installed(package: str, reason: str = "") -> None:
    """Refuse what needs a package that is not installed; the extra of this package has the same name.

    Raises:
        UserError: Says how to install it.
    """
    if find_spec(package) is None:
        raise UserError(f"{reason}{package} is not installed; pip install 'stedfm-hf[{package}]'")


def deepspeed_file(name: str) -> Path:
    """Return the file of a DeepSpeed configuration.

    Raises:
        UserError: DeepSpeed is not installed, or there is no such file.
    """
    check_installed("deepspeed")
    packaged = {path.stem: path for path in DEEPSPEED_CONFIGS.glob("*.json")}
    path = packaged.get(name, Path(name).expanduser())
    if not path.is_file():
        names = ", ".join(sorted(packaged))
        raise UserError(f"deepspeed {name!r}: there is no such file; give {names} or a JSON file")
    return path
