"""Work for several processes that leaves none of them behind (ours)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from stedfm_hf.runs.errors import UserError

T = TypeVar("T")


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(function: Callable[..., T], calls: Iterable[tuple[Any, ...]], *, workers: int) -> Iterator[T]:
    """Does calls in several processes, and gives the results as they come.

    Args:
        function: of a module, so that a new process finds it.
        calls: arguments of each call; taken as there is room, and pickled.
        workers: processes; with one, all is done in this one.

    Raises:
        UserError: a process was killed.
        Exception: what a call raises; calls that have not begun are dropped.

    Example:
        >>> sorted(work(abs, [(-1,), (2,)], workers=1))
        [1, 2]
    """
    if workers < 2:
        for arguments in calls:
            yield function(*arguments)
        return
    # Spawned, not forked: the threads of a parent that has imported torch do not survive a fork.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    waiting: set[Future[T]] = set()
    remaining = iter(calls)
    try:
        while True:
            room = 2 * workers - len(waiting)
            waiting |= {pool.submit(function, *arguments) for arguments in islice(remaining, room)}
            if not waiting:
                break
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, perhaps for want of memory; the same command goes on where it stopped, with fewer "
            "--workers if need be (a script that calls this needs `if __name__ == '__main__':`)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Ctrl-C is the parent's to handle; and should the parent be killed, nobody would ever end this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
