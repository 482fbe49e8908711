"""What the verbs share: common options, and how they answer and complain."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer


class Device(StrEnum):
    """Where a model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
OnDevice = Annotated[Device, typer.Option(help="Where the model runs; auto takes a GPU if there is one.")]


def complain(text: str) -> None:
    """Print one line on standard error."""
    print(f"stedfm: {text}", file=sys.stderr)


def chosen_model(model: str | None) -> str:
    """The model to use: the official one where none is named; of a packaged one, what must be said is said."""
    from stedfm_hf.weights.default_model import default_model
    from stedfm_hf.weights.packaged import PACKAGED

    if model in PACKAGED:
        complain(f"{model}: {PACKAGED[model]}")
    return default_model() if model is None else model


def one_line(error: BaseException) -> str:
    """The words of an error on one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def print_json(value: Any) -> None:
    """Print an answer for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows under their heads, columns aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def index_or_name(text: str | None) -> str | int | None:
    """A number where the text is one: series and channels go by either."""
    return int(text) if text is not None and text.isdecimal() else text
