"""Protection of the pages: headers, hosts and origins, and forms of limited size."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The address is the key to the study: no other host may learn it. `no-referrer` would also hide the origin of
    # forms, which is checked.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
MOST_BYTES = 4096
"""Largest size of a form, in bytes; those of the pages have about 100."""
_MOST_FIELDS = 10


class Guard:
    """Middleware that refuses requests for other hosts and forms of other origins, and adds headers to responses.

    Args:
        app: The application.
        hosts: Names of this server in the addresses of its pages.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, frozenset(each.lower() for each in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        app = self._app if refusal is None else PlainTextResponse(*refusal)
        await app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> tuple[str, int] | None:
        """Return the message and status with which a request is refused, or None."""
        host = headers.get("host", "")
        if _name_of(f"//{host}") not in self._hosts:
            return "This study is not served at this address.", 400
        origin = headers.get("origin")
        if method == "POST" and origin is not None and _netloc_of(origin) != host.lower():
            return "This form belongs to another page.", 403
        return None


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; if a name occurs more than once, the last one counts.

    Raises:
        HTTPException: With status 413 or 400, if the form is too large or not a form.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise HTTPException(413, "The form is too large.")
    try:
        fields = parse_qs(content.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise HTTPException(400, "The form is not complete.") from error
    return {name: values[-1] for name, values in fields.items()}


def whole_number(form: dict[str, str], name: str, most: int) -> int:
    """Return a field of a form as a number from 0 to `most`.

    Raises:
        HTTPException: With status 400, if it is missing or something else.
    """
    text = form.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 16 and int(text) <= most):
        raise HTTPException(400, "The form is not complete.")
    return int(text)


def _name_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _netloc_of(address: str) -> str | None:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return None
