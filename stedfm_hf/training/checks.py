"""Checks of settings that need other packages or files; without importing torch."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from stedfm_hf.runs import UserError
from stedfm_hf.runs.wording import nearest

TRACKERS_OF_PACKAGES = ("clearml", "codecarbon", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio", "wandb")
"""Trackers that are named like the package they need, without an extra of stedfm-hf."""
DEEPSPEED_CONFIGS = Path(__file__).parent / "deepspeed_configs"


@cache
def training_argument_names() -> tuple[str, ...]:
    """Return the names of the fields of `transformers.TrainingArguments`.

    They are read from the source code, because importing transformers takes seconds.
    """
    (kind,) = (each for each in _source("training_args.py").body if getattr(each, "name", "") == "TrainingArguments")
    assert isinstance(kind, ast.ClassDef)
    targets = (each.target for each in kind.body if isinstance(each, ast.AnnAssign))
    return tuple(each.id for each in targets if isinstance(each, ast.Name))


@cache
def tracker_names() -> tuple[str, ...]:
    """Return the names of the trackers of transformers for `report_to`, read from the source code."""
    for each in _source("integrations/integration_utils.py").body:
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "INTEGRATION_TO_CALLBACK":
            assert isinstance(each.value, ast.Dict)
            return tuple(str(key.value) for key in each.value.keys if isinstance(key, ast.Constant))
    raise AssertionError("this version of transformers has no INTEGRATION_TO_CALLBACK")


def _source(name: str) -> ast.Module:
    found = find_spec("transformers")
    assert found is not None and found.origin is not None
    return ast.parse((Path(found.origin).parent / name).read_text(encoding="utf-8"))


def flag(name: str) -> str:
    """Return the option of the command line for the name of a setting.

    Example:
        >>> flag("max_steps")
        '--max-steps'
    """
    return "--" + name.replace("_", "-")


def check_argument_names(names: Iterable[str], settings: Sequence[str]) -> None:
    """Refuse names that are not fields of `transformers.TrainingArguments`.

    Args:
        names: Names of the additional training arguments.
        settings: Names of the settings of the command.

    Raises:
        UserError: A name is unknown or is a setting of the command; the message names the nearest option.
    """
    for name in names:
        if name in settings:
            raise UserError(f"training_arguments: {name} is a setting of this command; give it as {flag(name)}")
        if name.removeprefix("no_") not in training_argument_names():
            near = nearest(flag(name), map(flag, [*settings, *training_argument_names()]))
            raise UserError(f"{flag(name)} is neither an option of this command nor a training argument{near}")


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that do not exist or are not installed.

    Args:
        names: Names for `report_to` of transformers.

    Raises:
        UserError: A tracker is unknown or not installed.
    """
    for name in names:
        if name not in ("none", "all", *tracker_names()):
            raise UserError(
                f"--report-to {name}: there is no such tracker{nearest(name, tracker_names()) or '; try tensorboard'}"
            )
        if name == "tensorboard":
            check_installed(name)
        elif name in TRACKERS_OF_PACKAGES and find_spec(name) is None:
            package = name.replace("_", "-")
            raise UserError(f"--report-to {name}: {package} is not installed; pip install {package}")


def check_installed(package: str, reason: str = "") -> None:
    """Check that an optional package is installed; the extra of stedfm-hf has the same name.

    Args:
        package: Name of the package.
        reason: Start of the message, such as `--mode lora: `.

    Raises:
        UserError: The package is not installed.
    """
    if find_spec(package) is None:
        raise UserError(f"{reason}{package} is not installed; pip install 'stedfm-hf[{package}]'")


def deepspeed_file(name: str) -> Path:
    """Return the file of a DeepSpeed configuration.

    Args:
        name: Name of a packaged configuration, or path of a JSON file.

    Raises:
        UserError: DeepSpeed is not installed, or the file does not exist.
    """
    check_installed("deepspeed")
    packaged = {path.stem: path for path in DEEPSPEED_CONFIGS.glob("*.json")}
    path = packaged.get(name, Path(name).expanduser())
    if not path.is_file():
        names = ", ".join(sorted(packaged))
        raise UserError(f"--deepspeed {name}: there is no such file; give {names} or a JSON file")
    return path
