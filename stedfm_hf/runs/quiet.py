"""Keeping a library's own lines and bars out of ours, and giving them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers(*, errors_only: bool = False) -> Iterator[None]:
    """Hides the bars of transformers for loading and saving, which would tear our lines; works as a decorator, too.

    Afterwards all is as it was: whoever called us may want its reports of missing weights.

    Args:
        errors_only: hide its warnings and reports as well.
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
