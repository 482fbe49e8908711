from __future__ import annotations

import io

import pytest

from stedfm_hf.runs import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes only when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_every_few_seconds_with_rate_and_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(100, description="embed", stream=stream, every=5, clock=clock) as progress:
        for _ in range(20):
            clock.now += 0.5
            progress.update()
    assert stream.getvalue().splitlines() == [
        "embed: 10/100 images, 2.0 images/s, 45 s left",
        "embed: 20/100 images, 2.0 images/s, 40 s left",
    ]


def test_items_of_an_earlier_run_are_counted_but_are_no_part_of_the_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, description="embed", done=900, stream=stream, clock=clock) as progress:
        clock.now = 2.0
        progress.update(50)
    assert stream.getvalue() == "embed: 950/1000 images, 25.0 images/s, 2 s left\n"


def test_an_unknown_total_has_no_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(None, description="walk", unit="files", stream=stream, clock=clock) as progress:
        clock.now = 1.0
        progress.update(1000)
    assert stream.getvalue() == "walk: 1000 files, 1000 files/s\n"


@pytest.mark.parametrize(("seconds", "words"), [(59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(1 + round(seconds), description="x", stream=stream, clock=clock) as progress:
        clock.now = 1.0
        progress.update()
    assert stream.getvalue().endswith(f"{words} left\n")


def test_a_terminal_gets_a_bar_and_notes_do_not_tear_it() -> None:
    stream = Terminal()
    with Progress(4, description="embed", done=1, stream=stream) as progress:
        progress.update(2)
        progress.note("a.tif: truncated")
        progress.update()
    assert "4/4" in stream.getvalue() and "a.tif: truncated\n" in stream.getvalue()


def test_a_note_without_a_terminal_is_a_line() -> None:
    stream = io.StringIO()
    Progress(4, description="embed", stream=stream).note("a.tif: truncated")
    assert stream.getvalue() == "a.tif: truncated\n"
