"""Make calls in this process, in other processes or on a Dask cluster, and repeat those of a killed worker."""

from __future__ import annotations

import os
import signal
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.memory import keep_freed_memory
from stedfm_hf.runs.worker_process import use_device

T = TypeVar("T")
ATTEMPTS = 3
"""Number of attempts at a call whose worker is killed each time."""
_PATIENCE = 1.0  # seconds after which the number of workers is asked again


class Workers(Executor):
    """Executor with a number of workers, which may be killed.

    Attributes:
        lost: Errors of a call whose worker was killed.
        advice: What to do if workers are killed again and again.
        ended: Message if the workers have ended for good.
    """

    lost: tuple[type[BaseException], ...] = ()
    advice = ""
    ended = "the workers have ended"

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of workers now."""

    @property
    def elsewhere(self) -> bool:
        """Whether calls are made in other processes."""
        return True

    def exclude(self, error: BaseException) -> None:  # noqa: B027 - most executors have nothing to exclude
        """Exclude the worker that an error of `lost` names from further calls."""


class InThisProcess(Workers):
    """Executor that makes every call immediately, in the process that submits it."""

    count = 1
    elsewhere = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call the function and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ProcessWorkers(Workers):
    """Pool of processes on this machine; after one was killed, the next call opens a new pool.

    Processes are spawned, because the threads of a parent that has imported torch do not survive a fork.

    Args:
        count: Number of processes.
        devices: Device of each process; empty if they use none.
    """

    lost = (BrokenProcessPool,)
    advice = "with fewer --workers (a script that calls this needs `if __name__ == '__main__':`)"

    def __init__(self, count: int, devices: Sequence[str] = ()) -> None:
        self._count, self._devices = count, tuple(devices)
        self._pool = self._open()

    @property
    def count(self) -> int:
        """Number of processes."""
        return self._count

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submit a call."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._open()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _open(self) -> ProcessPoolExecutor:
        context = get_context("spawn")
        devices = context.SimpleQueue()
        for device in self._devices:
            devices.put(device)
        return ProcessPoolExecutor(
            self._count, mp_context=context, initializer=_begin, initargs=(devices if self._devices else None,)
        )


def cores() -> int:
    """Return the number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_processes(count: int, devices: Sequence[str] = ()) -> Iterator[Workers]:
    """Open processes of this machine; with one, calls are made in this process.

    Args:
        count: Number of processes.
        devices: Device of each process; empty if they use none.

    Yields:
        Workers for `run_items`. Calls that have not begun are cancelled at the end.
    """
    workers = InThisProcess() if count < 2 else ProcessWorkers(count, devices)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Call:
    """Call of a function, and how often its worker was killed."""

    arguments: tuple[Any, ...]
    deaths: int = 0

    def again(self) -> _Call:
        return _Call(self.arguments, self.deaths + 1)


def run_items(
    function: Callable[..., T],
    calls: Iterable[tuple[Any, ...]],
    *,
    workers: int | Workers,
    attempts: int = ATTEMPTS,
) -> Iterator[T]:
    """Call a function for every item, and yield the results as they come (see `run_calls`).

    Example:
        >>> sorted(run_items(abs, [(-1,), (2,)], workers=1))
        [1, 2]
    """
    return (result for _, result in run_calls(function, calls, workers=workers, attempts=attempts))


def run_calls(
    function: Callable[..., T],
    calls: Iterable[tuple[Any, ...]],
    *,
    workers: int | Workers,
    attempts: int = ATTEMPTS,
) -> Iterator[tuple[tuple[Any, ...], T]]:
    """Call a function for every item, and yield the arguments and the result of each call as they come.

    Args:
        function: Module-level function, or another object that another process can unpickle.
        calls: Arguments of each call; consumed as workers become free.
        workers: Workers (`stedfm_hf.runs.workers`), or a number of processes to open; with one, calls are made in
            this process.
        attempts: Number of attempts at a call whose worker is killed each time.

    Raises:
        UserError: If the worker of a call was killed `attempts` times.
        Exception: If a call raises; calls that have not begun are cancelled.

    Example:
        >>> sorted(run_calls(abs, [(-1,), (2,)], workers=1))
        [((-1,), 1), ((2,), 2)]
    """
    if isinstance(workers, int):
        with open_processes(workers) as opened:
            yield from run_calls(function, calls, workers=opened, attempts=attempts)
        return
    remaining, again = iter(calls), deque[_Call]()
    waiting: dict[Future[T], _Call] = {}

    def following() -> _Call | None:
        if again:
            return again.popleft()
        arguments = next(remaining, None)
        return None if arguments is None else _Call(arguments)

    try:
        while True:
            most = 2 * workers.count if workers.elsewhere else 1
            while len(waiting) < most and (call := following()) is not None:
                waiting[workers.submit(function, *call.arguments)] = call
            if not waiting:
                return
            # Not for ever, so that workers that join get calls before the first result.
            patience = _PATIENCE if workers.elsewhere else None
            for future in wait(waiting, patience, FIRST_COMPLETED).done:
                call = waiting.pop(future)
                try:
                    result = future.result()
                except CancelledError as error:
                    raise UserError(workers.ended) from error
                except workers.lost as error:
                    workers.exclude(error)
                    if call.deaths + 1 == attempts:
                        raise UserError(
                            f"a worker process was killed {attempts} times, perhaps for lack of memory; run the same "
                            f"command again to resume, {workers.advice}"
                        ) from error
                    again.append(call.again())
                else:
                    yield call.arguments, result
    finally:
        for future in waiting:
            future.cancel()


def _begin(devices: Any) -> None:
    """Take a device, ignore Ctrl-C, which the parent handles, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    if devices is not None:
        use_device(devices.get())


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
