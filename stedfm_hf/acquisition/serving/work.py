"""Computations of a server: one after the other, each with a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from stedfm_hf.inference.limits import time_limit

P = ParamSpec("P")
R = TypeVar("R")


class Work:
    """One thread that computes everything: it alone uses the model and changes the finders.

    Args:
        max_seconds: Time limit of a computation.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Wait for the turn of a function, and return its result.

        Args:
            function: Function.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            StoppedError: If it computes longer than the limit.
        """

        def compute() -> R:
            with time_limit(self._max_seconds):
                return function(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self.thread, compute)

    @property
    def thread(self) -> ThreadPoolExecutor:
        """The thread, which starts with the first computation."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="stedfm-serve")
        return self._thread

    def close(self) -> None:
        """End the thread after the computation that it does; the next computation starts another one."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
