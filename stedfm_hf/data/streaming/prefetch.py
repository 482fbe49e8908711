"""Prefetching of the items of a generator in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")
PREFETCHED = 4
"""Default number of prefetched items."""


def prefetch(items: Generator[Item, None, None], count: int = PREFETCHED) -> Generator[Item, None, None]:
    """Prefetch the items of a generator in a separate thread.

    Args:
        items: Generator; it is closed after the last item, or when the returned generator is closed.
        count: Largest number of prefetched items.

    Yields:
        The items in their order; errors of the generator are raised here.

    Example:
        >>> list(prefetch(number**2 for number in range(4)))
        [0, 1, 4, 9]
    """
    # An item, or an error of the generator, or (None, None) after the last item.
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=count)
    stopped = threading.Event()

    def hand_over(item: Item | None, error: BaseException | None) -> None:
        """Put an item or an error into the queue; give up when the reader stops, even if the queue is full."""
        while not stopped.is_set():
            try:
                ready.put((item, error), timeout=0.1)
                return
            except queue.Full:
                pass

    def produce() -> None:
        """Put the items into the queue until the reader stops, then close the generator in its thread."""
        try:
            for item in items:
                hand_over(item, None)
                if stopped.is_set():
                    break
            hand_over(None, None)
        except BaseException as error:  # raised in the thread that reads
            hand_over(None, error)
        finally:
            items.close()

    thread = threading.Thread(target=produce, name="stedfm-stream-batches", daemon=True)
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
