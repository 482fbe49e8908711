"""Silence the progress bars and reports of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
