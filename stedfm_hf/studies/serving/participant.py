"""Pages of participants: every form is answered by a redirect to the page that is next."""

from __future__ import annotations

import math
import time
from functools import lru_cache
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response

from stedfm_hf.studies.answers import PRACTICE
from stedfm_hf.studies.plan import plan_trials
from stedfm_hf.studies.serving import sessions
from stedfm_hf.studies.serving.context import Context, private_link
from stedfm_hf.studies.serving.pages import CONFIDENCES, ParticipantPages, render
from stedfm_hf.studies.serving.security import read_form, whole_number
from stedfm_hf.studies.serving.tokens import is_token, opaque_name

Form = Annotated[dict[str, str], Depends(read_form)]
_MOST = 10**7
"""Largest number of a trial in a form."""
_LONGEST_S = 86_400.0
"""Longest response time that is stored, in seconds."""


class ParticipantRoutes:
    """Handlers of the pages of participants.

    Args:
        context: What the pages need.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._study, self._store = context, context.study, context.store
        facts = context.store.facts()
        self._secret, self._join = facts["secret"], facts["join"]
        self._files_of = lru_cache(64)(self._list_files)

    def invitation(self, token: str) -> Response:
        """Show the page of the open link. Opening it makes no participant, because programs preview links."""
        self._check_open(token)
        return render("join", study=self._study)

    def join(self, token: str) -> Response:
        """Make a new participant."""
        self._check_open(token)
        with self._store.writing() as transaction:
            if len(transaction.participants()) >= self._context.max_participants:
                raise HTTPException(403, "This study has enough participants. Thank you for your interest.")
            own = transaction.invite(1)[0]
        return RedirectResponse(f"/p/{own}", 303)

    def show(self, token: str) -> Response:
        """Show what is next for a participant: the start, a trial, or the end."""
        participant = self._participant(token)
        with self._store.reading() as transaction:
            history, has_started = transaction.history(participant), transaction.has_started(participant)
        pages = self._pages(participant, token)
        if not has_started:
            return pages.start(private_link(self._context.address, token))
        progress = sessions.progress_of(self._study, participant, history)
        return pages.done(progress) if progress.trial is None else pages.trial(progress)

    def pause(self, token: str) -> Response:
        """Show how to come back."""
        return self._pages(self._participant(token), token).pause(private_link(self._context.address, token))

    def start(self, token: str) -> Response:
        """Record that a participant agreed and started."""
        participant = self._participant(token)
        with self._store.writing() as transaction:
            transaction.add_start(participant)
        return _next(token)

    def answer(self, token: str, form: Form) -> Response:
        """Store an answer, if its trial is the next one."""
        participant = self._participant(token)
        trial, attempt = whole_number(form, "trial", _MOST), whole_number(form, "attempt", _MOST)
        position = whole_number(form, "choice", _MOST)
        confidence = whole_number(form, "confidence", len(CONFIDENCES)) if self._study.confidence else None
        if confidence == 0:
            raise HTTPException(400, "The form is not complete.")
        since_s = time.time() - whole_number(form, "shown", 10**15) / 1000
        if 0 <= since_s < self._context.shortest_s:
            return _next(token)
        with self._store.reading() as transaction:
            if not transaction.has_started(participant):
                return _next(token)
        try:
            answered = sessions.record(
                self._study,
                self._store,
                participant,
                trial=trial,
                attempt=attempt,
                position=position,
                response_s=_response_s(form.get("seconds", ""), since_s),
                confidence=confidence,
            )
        except IndexError as error:
            raise HTTPException(400, "This answer does not exist.") from error
        if answered is not None and answered.kind == PRACTICE:
            return RedirectResponse(f"/p/{quote(token)}/feedback/{trial}", 303)
        return _next(token)

    def undo(self, token: str, form: Form) -> Response:
        """Take the last answer back."""
        participant = self._participant(token)
        trial, attempt = whole_number(form, "trial", _MOST), whole_number(form, "attempt", _MOST)
        sessions.undo(self._study, self._store, participant, trial=trial, attempt=attempt)
        return _next(token)

    def feedback(self, token: str, trial: str) -> Response:
        """Show the right answer to a practice trial that was answered."""
        participant = self._participant(token)
        number = whole_number({"trial": trial}, "trial", _MOST)
        with self._store.reading() as transaction:
            given = [each for each in transaction.history(participant) if not each.undone and each.kind == PRACTICE]
        if number >= len(given):
            return _next(token)
        is_last = number == len(self._study.practice) - 1
        planned = plan_trials(self._study, participant)[number]
        return self._pages(participant, token).feedback(planned, given[number], is_last=is_last)

    def image(self, token: str, name: str) -> Response:
        """Send an image under the name that only this participant knows."""
        file = self._files_of(self._participant(token)).get(name)
        if file is None:
            raise HTTPException(404)
        return FileResponse(file, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    def _participant(self, token: str) -> str:
        """Return the id of the participant with a token."""
        participant = self._store.participant(token)
        if participant is None:
            raise HTTPException(404)
        return participant

    def _list_files(self, participant: str) -> dict[str, Path]:
        """Return the PNG files by the names under which a participant sees them."""
        return {opaque_name(self._secret, participant, path): file for path, file in self._context.images.items()}

    def _check_open(self, token: str) -> None:
        if not (self._context.is_open and is_token(token, self._join)):
            raise HTTPException(404)

    def _pages(self, participant: str, token: str) -> ParticipantPages:
        return ParticipantPages(self._study, self._secret, participant, f"/p/{quote(token)}")


def _next(token: str) -> Response:
    """Return a redirect to the page that is next, so that a reload does not send a form again."""
    return RedirectResponse(f"/p/{quote(token)}", 303)


def _response_s(measured: str, since_s: float) -> float:
    """Return the response time: that which the browser measured, or else the time since the page was made.

    Args:
        measured: Field of the form, in seconds.
        since_s: Time since the page was made, in seconds.
    """
    try:
        seconds = float(measured[:20])
    except ValueError:
        seconds = math.nan
    seconds = seconds if 0 <= seconds <= _LONGEST_S else since_s
    return round(min(max(seconds, 0.0), _LONGEST_S), 3)
