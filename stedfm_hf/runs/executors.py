"""Run calls through an executor of `concurrent.futures`: in this process or in a pool of processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from stedfm_hf.runs.errors import UserError

T = TypeVar("T")


class InThisProcess(Executor):
    """Executor that makes every call immediately, in the process that submits it."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call the function and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def cores() -> int:
    """Return the number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_executor(workers: int) -> Executor:
    """Return an executor: this process for one worker, a pool of processes for more.

    Processes are spawned, because the threads of a parent that has imported torch do not survive a fork.
    """
    if workers < 2:
        return InThisProcess()
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)


def run_items(
    function: Callable[..., T], calls: Iterable[tuple[Any, ...]], *, workers: int, executor: Executor | None = None
) -> Iterator[T]:
    """Call a function for every item through an executor, and yield the results as they come.

    Args:
        function: Module-level function, which another process can import.
        calls: Arguments of each call; consumed as workers become free.
        workers: Number of workers; with one, every call is made in this process.
        executor: Executor to use instead, such as that of a cluster; it has `workers` workers.

    Raises:
        UserError: If a worker process was killed.
        Exception: If a call raises; calls that have not begun are cancelled.

    Example:
        >>> sorted(run_items(abs, [(-1,), (2,)], workers=1))
        [1, 2]
    """
    pool = open_executor(workers) if executor is None else executor
    pending = 1 if isinstance(pool, InThisProcess) else 2 * workers
    waiting: set[Future[T]] = set()
    remaining = iter(calls)
    try:
        while True:
            waiting |= {pool.submit(function, *arguments) for arguments in islice(remaining, pending - len(waiting))}
            if not waiting:
                break
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps for lack of memory; run the same command again to resume, with "
            "fewer --workers (a script that calls this needs `if __name__ == '__main__':`)"
        ) from error
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Ignore Ctrl-C, which the parent handles, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
