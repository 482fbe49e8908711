"""The web application: pages of participants and of the organiser, behind one guard."""

from __future__ import annotations

import sqlite3
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request
from starlette.responses import Response

from stedfm_hf.studies.serving.context import Context
from stedfm_hf.studies.serving.organiser import OrganiserRoutes
from stedfm_hf.studies.serving.pages import message, static_file
from stedfm_hf.studies.serving.participant import ParticipantRoutes
from stedfm_hf.studies.serving.security import Guard

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Names of this computer, which are always accepted."""


def create_app(context: Context) -> Guard:
    """Return the application.

    Args:
        context: What the pages need.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    participant, organiser = ParticipantRoutes(context), OrganiserRoutes(context)
    for method, path, show in (
        ("GET", "/static/study.css", _style),
        ("GET", "/static/study.js", _script),
        ("GET", "/favicon.ico", _no_icon),
        ("GET", "/join/{token}", participant.invitation),
        ("POST", "/join/{token}", participant.join),
        ("GET", "/p/{token}", participant.show),
        ("GET", "/p/{token}/pause", participant.pause),
        ("GET", "/p/{token}/feedback/{trial}", participant.feedback),
        ("GET", "/p/{token}/images/{name}", participant.image),
        ("POST", "/p/{token}/start", participant.start),
        ("POST", "/p/{token}/answer", participant.answer),
        ("POST", "/p/{token}/undo", participant.undo),
        ("GET", "/organiser/{token}", organiser.show),
        ("POST", "/organiser/{token}/invite", organiser.invite),
        ("GET", "/organiser/{token}/answers.parquet", organiser.download),
    ):
        app.add_api_route(path, show, methods=[method])
    app.add_exception_handler(404, _refuse)
    app.add_exception_handler(405, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(sqlite3.OperationalError, _ask_to_wait)
    return Guard(app, {*LOCAL, urlsplit(context.address).hostname or ""})


def _style() -> Response:
    return Response(static_file("study.css"), media_type="text/css", headers={"Cache-Control": "no-cache"})


def _script() -> Response:
    return Response(static_file("study.js"), media_type="text/javascript", headers={"Cache-Control": "no-cache"})


def _no_icon() -> Response:
    return Response(status_code=204)


def _refuse(request: Request, error: Exception) -> Response:
    """Return the page for a request that cannot be answered."""
    status = getattr(error, "status_code", 404)
    if status in (404, 405):
        text = "Studies are opened by a private link. Please check yours."
        if request.url.path.startswith("/organiser"):
            text = "The link of the organiser is new at every start of the server; its terminal shows the present one."
        return message("No such page", text, status)
    return message("This did not work", str(getattr(error, "detail", "")), status, _back(request))


def _ask_to_wait(request: Request, error: Exception) -> Response:
    """Return the page for an answer that was not stored: the disk is full, or another program keeps the file."""
    return message("Please try again", "Your last step could not be saved just now.", 503, _back(request))


def _back(request: Request) -> str | None:
    """Return the path of the private link that a request belongs to, or None."""
    parts = request.url.path.split("/")
    return f"/p/{parts[2]}" if parts[1] == "p" else None
