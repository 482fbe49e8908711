"""Progress of a command: a bar on a terminal, plain lines with the rate elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

from stedfm_hf.runs.secret_detection import without_secrets
from stedfm_hf.runs.wording import escaped


def print_note(text: str) -> None:
    """Print a line on standard error; standard output is for the result."""
    print(f"stedfm: {escaped(without_secrets(text))}", file=sys.stderr, flush=True)


class Progress:
    """Show progress on standard error: a tqdm bar on a terminal, else one plain line every few seconds and at the end.

    Args:
        total: Number of items, or None if it is unknown.
        description: First word of every line, usually the command.
        unit: Plural name of the items.
        done: Number of items that an earlier run has done; counted, but not in the rate.
        stream: Stream to write to; standard error by default.
        every: Time between two plain lines, in seconds.
        clock: Function that returns a monotonic time, in seconds.

    Example:
        >>> with Progress(3, description="embed", stream=sys.stdout, clock=lambda: 0.0) as progress:
        ...     for _ in range(3):
        ...         progress.update()
        embed: 3/3 images
    """

    def __init__(
        self,
        total: int | None,
        *,
        description: str,
        unit: str = "images",
        done: int = 0,
        stream: TextIO | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.count = done
        self._description, self._unit, self._every, self._clock = description, unit, every, clock
        self._stream = stream if stream is not None else sys.stderr
        self._already_done = done
        self._started = self._last_line = clock()
        self._printed_count: int | None = None
        self._bar: tqdm[Any] | None = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total,
                desc=description,
                unit=f" {unit}",
                initial=done,
                file=self._stream,
                dynamic_ncols=True,
                smoothing=0.1,
            )

    @property
    def rate(self) -> float:
        """Items per second of this run; 0 before any time has passed."""
        seconds = self._clock() - self._started
        return (self.count - self._already_done) / seconds if seconds > 0 else 0.0

    def update(self, n: int = 1) -> None:
        """Count `n` more items."""
        self.count += n
        if self._bar is not None:
            self._bar.update(n)
        elif self._clock() - self._last_line >= self._every:
            self._print_line()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        text = escaped(without_secrets(text))
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._printed_count != self.count:
            self._print_line()

    def _print_line(self) -> None:
        """Print count, rate and estimated remaining time on one line, for streams that are not terminals."""
        self._last_line, self._printed_count = self._clock(), self.count
        words = [f"{self.count}/{self.total} {self._unit}" if self.total is not None else f"{self.count} {self._unit}"]
        if rate := self.rate:
            words.append(
                f"{rate:.{1 if rate < 100 else 0}f} {self._unit}/s" if rate >= 1 else f"{rate:.2g} {self._unit}/s"
            )
            if self.total is not None and self.count < self.total:
                words.append(f"{_duration((self.total - self.count) / rate)} left")
        print(f"{self._description}: {', '.join(words)}", file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    """Format a duration: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
