"""HTML of the pages, from templates; all text is escaped."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from stedfm_hf.studies.answers import PRACTICE
from stedfm_hf.studies.plan import Trial
from stedfm_hf.studies.serving.sessions import Progress, images_of, progress_of, right_answer
from stedfm_hf.studies.serving.store import Answer, Transaction
from stedfm_hf.studies.serving.tokens import opaque_name
from stedfm_hf.studies.study import REAL_OR_GENERATED, Study

KEYS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Keys of the options, from left to right; further options have none."""
CONFIDENCES = ((1, "guess"), (2, "unsure"), (3, "fairly sure"), (4, "sure"), (5, "certain"))
_PACKAGE = "stedfm_hf.studies.serving"
_ENVIRONMENT = Environment(
    loader=PackageLoader(_PACKAGE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Shown:
    """Option of a trial, for the page.

    Attributes:
        key: Key of the keyboard, or "".
        words: Text of the option; "" if it is an image.
        image: Address of its image, or None.
    """

    key: str
    words: str
    image: str | None

    @property
    def name(self) -> str:
        """Name of the option in sentences."""
        return self.words or self.key


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page.

    Args:
        template: Name of the template, without its suffix.
        status: HTTP status.
        values: Variables of the template.
    """
    page = _ENVIRONMENT.get_template(f"{template}.html").render(values)
    return HTMLResponse(page.encode("utf-8", "backslashreplace"), status)


def static_file(name: str) -> str:
    """Return the content of the style sheet or the script."""
    return (files(_PACKAGE) / "templates" / name).read_text(encoding="utf-8")


def message(title: str, text: str, status: int = 200, back: str | None = None) -> HTMLResponse:
    """Return a page with a message.

    Args:
        title: Heading.
        text: Sentence.
        status: HTTP status.
        back: Address of a link to continue, or None.
    """
    return render("message", status, title=title, text=text, back=back)


class ParticipantPages:
    """Pages of one participant.

    Args:
        study: The study.
        secret: Secret of the study.
        participant: Id of the participant.
        path: Path of the private link.
    """

    def __init__(self, study: Study, secret: str, participant: str, path: str) -> None:
        self._study, self._secret, self._participant = study, secret, participant
        self._common: dict[str, Any] = {"study": study, "path": path}

    def start(self, link: str) -> HTMLResponse:
        """Return the page with instructions and consent."""
        return render("start", link=link, **self._common)

    def trial(self, progress: Progress) -> HTMLResponse:
        """Return the page of the next trial."""
        assert progress.trial is not None
        return render(
            "trial",
            progress=progress,
            is_practice=progress.trial.kind == PRACTICE,
            shown_ms=time.time_ns() // 10**6,
            confidences=CONFIDENCES,
            **self._content(progress.trial),
            **self._common,
        )

    def feedback(self, trial: Trial, given: Answer, *, is_last: bool) -> HTMLResponse:
        """Return the page that shows the right answer to a practice trial.

        Args:
            trial: The trial.
            given: Its answer.
            is_last: Whether the study itself is next.
        """
        right = right_answer(self._study, trial.stimulus)
        return render(
            "feedback",
            given=trial.options.index(given.answer),
            right=None if right is None else trial.options.index(right),
            is_last=is_last,
            **self._content(trial),
            **self._common,
        )

    def pause(self, link: str) -> HTMLResponse:
        """Return the page that explains how to come back."""
        return render("pause", link=link, **self._common)

    def done(self, progress: Progress) -> HTMLResponse:
        """Return the last page."""
        return render("done", progress=progress, **self._common)

    def _content(self, trial: Trial) -> dict[str, Any]:
        """Return the images and the options of a trial."""
        image, of_options = images_of(self._study, trial)
        in_words = trial.options
        if self._study.type == REAL_OR_GENERATED:
            in_words = tuple(each.capitalize() for each in trial.options)
        return {
            "image": self._address(image),
            "options": [
                Shown(KEYS[number : number + 1], words if path is None else "", self._address(path))
                for number, (words, path) in enumerate(zip(in_words, of_options, strict=True))
            ],
        }

    def _address(self, path: str | None) -> str | None:
        if path is None:
            return None
        return f"{self._common['path']}/images/{opaque_name(self._secret, self._participant, path)}"


@dataclass(frozen=True)
class Status:
    """Row of the organiser's page.

    Attributes:
        participant: Id of the participant.
        started_at: Time of the start (UTC), or None.
        last_at: Time of the last answer (UTC), or None.
        done: Number of answers that count.
        total: Number of trials; for `rank` the largest that may be needed.
        undone: Number of answers that were taken back.
        median_s: Median response time in seconds, or None.
        is_done: Whether the participant has answered all trials.
    """

    participant: str
    started_at: datetime | None
    last_at: datetime | None
    done: int
    total: int
    undone: int
    median_s: float | None
    is_done: bool


def list_participants(study: Study, transaction: Transaction) -> list[Status]:
    """Return the state of every participant.

    Args:
        study: The study.
        transaction: Transaction to read from.
    """
    of: dict[str, list[Answer]] = {name: [] for name, _ in transaction.participants()}
    for each in transaction.history():
        of[each.participant].append(each)
    return [_status(study, name, started, of[name]) for name, started in transaction.participants()]


def _status(study: Study, name: str, started: datetime | None, history: Sequence[Answer]) -> Status:
    """Return the progress of a participant from the history of the answers."""
    progress = progress_of(study, name, history)
    times = [each.response_s for each in history if not each.undone and each.kind != PRACTICE]
    return Status(
        name,
        started,
        history[-1].answered_at if history else None,
        len(times),
        progress.total if progress.trial is None or progress.trial.kind != PRACTICE else 0,
        sum(each.undone for each in history),
        statistics.median(times) if times else None,
        progress.trial is None,
    )
