"""Making things in a thread before they are asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")
PREFETCHED = 4
"""Batches that are put together before they are asked for."""


def prefetch(items: Generator[Item, None, None], count: int = PREFETCHED) -> Generator[Item, None, None]:
    """Makes items in a thread of its own, up to `count` before they are asked for.

    Args:
        items: what is made; it is closed when the last was taken, or when the answer is closed.
        count: items that wait at most.

    Yields:
        The items in their order; an error of theirs is raised where they are taken.

    Example:
        >>> list(prefetch(number**2 for number in range(4)))
        [0, 1, 4, 9]
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=count)
    stopped = threading.Event()

    def hand_over(item: Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put((item, error), timeout=0.1)
                return
            except queue.Full:
                pass

    def work() -> None:
        try:
            for item in items:
                hand_over(item, None)
                if stopped.is_set():
                    break
            hand_over(None, None)
        except BaseException as error:  # handed over to the thread that asks
            hand_over(None, error)
        finally:
            items.close()

    thread = threading.Thread(target=work, name="stedfm-stream-batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
