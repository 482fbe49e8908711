"""Silence transformers, and print warnings of this package as notes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stedfm_hf.runs.progress import print_note

_PACKAGE = Path(__file__).parents[1]


@contextmanager
def quiet_transformers(*, errors_only: bool = False) -> Iterator[None]:
    """Hide the progress bars of transformers for loading and saving; can also be used as a decorator.

    The previous settings are restored afterwards, because the caller may want its reports of missing weights.

    Args:
        errors_only: Whether to hide warnings and reports, too.
    """
    from transformers.utils import logging  # takes seconds to import, which most commands do not need

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    if errors_only:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print user warnings of this package as notes; can also be used as a decorator."""
    show = warnings.showwarning

    def show_as_note(message: Any, category: type[Warning], filename: str, *args: Any, **kwargs: Any) -> None:
        if category is UserWarning and Path(filename).is_relative_to(_PACKAGE):
            print_note(f"warning: {message}")
        else:
            show(message, category, filename, *args, **kwargs)

    warnings.showwarning = show_as_note
    try:
        yield
    finally:
        warnings.showwarning = show
