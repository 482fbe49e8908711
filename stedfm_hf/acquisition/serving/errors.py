"""Errors of requests: a status and one sentence, always as `{"error": ...}`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stedfm_hf.inference.limits import StoppedError
from stedfm_hf.modeling.io_stedfm import ImageReadError
from stedfm_hf.runs import UserError
from stedfm_hf.runs.secret_detection import without_secrets

RETRY_AFTER_S = 2
"""Time after which a refused client may try again, in seconds."""

_log = logging.getLogger("stedfm.serve")


class RequestError(HTTPException):
    """Request that is refused.

    Args:
        status: Status of HTTP.
        message: Sentence for the client: what is wrong, and how to fix it.
    """

    def __init__(self, status: int, message: str) -> None:
        busy = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
        super().__init__(status, message, busy | ({"WWW-Authenticate": "Bearer"} if status == 401 else {}))


def error_response(status: int, message: str, headers: Any = None) -> JSONResponse:
    """Return the response of an error.

    Args:
        status: Status of HTTP.
        message: Message, which is put on one line.
        headers: Headers.
    """
    return JSONResponse({"error": " ".join(message.split())[:500]}, status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Make an app answer every error with a status and one sentence; no error shows a traceback.

    Args:
        app: App.
    """

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = " ".join(str(each) for each in first["loc"])
        return error_response(422, f"{where}: {first['msg']}; correct the request")

    @app.exception_handler(StoppedError)
    async def stopped(request: Request, error: StoppedError) -> JSONResponse:
        # The same request would take as long again: it is too large, and must not be repeated.
        return error_response(413, f"{error}, or raise --max-seconds")

    for kind in (UserError, ImageReadError):

        @app.exception_handler(kind)
        async def wrong(request: Request, error: Exception) -> JSONResponse:
            return error_response(400, str(error))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _log.error("request failed: %s", without_secrets(repr(error)), exc_info=error)
        return error_response(500, "the server failed; its log has the reason")
