"""Sketched figures: most tests need that a command writes its figures, not what they show, and drawing takes long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

_save = Figure.savefig
_DRAWS = "STEDFM_TEST_FIGURES" in os.environ


def _sketch(self: Figure, target: Any, *, format: str | None = None, **_: Any) -> None:
    """Write a picture of one pixel instead of the figure."""
    suffix = format or (Path(target).suffix[1:] if isinstance(target, str | Path) else "png")
    content = BytesIO(b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    if suffix != "svg":
        Image.fromarray(np.zeros((1, 1), np.uint8)).save(content, format=suffix)
    if isinstance(target, str | Path):
        Path(target).write_bytes(content.getvalue())
    else:
        target.write(content.getvalue())


def sketch_figures() -> None:
    """Let every figure be sketched from now on, unless STEDFM_TEST_FIGURES is set."""
    if not _DRAWS:
        setattr(Figure, "savefig", _sketch)  # noqa: B010 (mypy)


@contextmanager
def plotted_figures() -> Iterator[None]:
    """Draw figures as users get them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _save)
        yield
