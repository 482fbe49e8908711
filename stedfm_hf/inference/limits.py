"""Time limit of computations: checked before every forward pass of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from stedfm_hf.runs import UserError


class StoppedError(UserError):
    """Computation that was stopped: it took too long, or its visitor left."""


_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def time_limit(seconds: float, has_left: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Limit the time of the forward passes in a `with` block, in this thread.

    Args:
        seconds: Time limit.
        has_left: Function that returns whether the visitor has left.

    Raises:
        StoppedError: In a forward pass of a model of `watch`, after the limit or when the visitor has left.
    """
    end = time.monotonic() + seconds

    def check() -> None:
        if has_left():
            raise StoppedError("the visit has ended; reload the page")
        if time.monotonic() > end:
            raise StoppedError(
                f"the computation took more than {seconds:g} s and was stopped; crop the image to a smaller region"
            )

    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check_time() -> None:
    """Raise a StoppedError if the block of `time_limit` that calls this has ended."""
    check = _check.get()
    if check is not None:
        check()


def watch(network: nn.Module) -> None:
    """Make the forward passes of a network obey `time_limit`.

    Args:
        network: Encoder of a STED-FM model, or another network.
    """

    def before_forward(module: nn.Module, inputs: Any) -> None:
        check_time()

    network.register_forward_pre_hook(before_forward)
