"""What happens to a request before it reaches a route: host, token, size, queue, and its entry in the metrics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stedfm_hf.acquisition.serving.errors import RequestError, error_response
from stedfm_hf.acquisition.serving.metrics import Metrics
from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.acquisition.serving.tokens import Tokens, client_of
from stedfm_hf.runs import counted
from stedfm_hf.runs.addresses import is_loopback

OPEN = ("/", "/health", "/docs", "/openapi.json")
"""Routes that need no token."""
OPEN_WITHOUT_TOKENS = ("/clients", "/process")
"""Routes that need no token on a server without tokens: to get one, and for clients of the reference."""
NO_CLIENT = ""
"""Id of a client without a token."""


@dataclass
class Admission:
    """Number of requests that work or wait, of all clients and of each.

    Attributes:
        most: Largest number in all.
        most_of_client: Largest number of one client.
    """

    most: int
    most_of_client: int
    _clients: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Number of requests that work or wait."""
        return self._clients.total()

    @contextmanager
    def admit(self, client: str) -> Iterator[None]:
        """Count a request during a block.

        Args:
            client: Id of the client.

        Raises:
            RequestError: If too many requests work or wait.
        """
        if self._clients[client] >= self.most_of_client:
            raise RequestError(
                429, f"this client waits for {counted(self.most_of_client, 'answer')}; try again after one of them"
            )
        if self.count >= self.most:
            raise RequestError(
                503, f"{counted(self.count, 'request')} of all clients are computed or wait; try again later"
            )
        self._clients[client] += 1
        try:
            yield
        finally:
            self._clients[client] -= 1
            self._clients += Counter()  # clients without a request are left out


@dataclass(frozen=True)
class Gate:
    """Middleware that refuses requests, and measures all.

    Attributes:
        app: App behind the gate.
        settings: Settings of the server.
        tokens: Tokens of the server.
        knows: Function that returns whether a client got its token from this server.
        admission: Requests that work or wait.
        metrics: Metrics.
    """

    app: ASGIApp
    settings: ServeSettings
    tokens: Tokens
    knows: Callable[[str], bool]
    admission: Admission
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the app, or respond with an error."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(scope, receive, send_and_note)
        except RequestError as error:
            response = error_response(error.status_code, error.detail, error.headers)
            await response(scope, receive, send_and_note)
        finally:
            path = getattr(scope.get("route"), "path", None)
            route = "refused" if path is None else f"{scope['method']} {path}"
            self.metrics.add(route, status, time.perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and forward it with the id of its client.

        Raises:
            RequestError: If it is refused.
        """
        headers, path = Headers(scope=scope), scope["path"]
        self._check_origin(headers)
        client = self._client(headers, path)
        scope.setdefault("state", {})["client"] = client
        limit = int(1e6 * self.settings.max_mb)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal() or int(length) > limit:
            raise self._too_large()
        limited = self._limited(receive, limit)
        if scope["method"] in ("POST", "DELETE") and path != "/clients":
            with self.admission.admit(client):
                await self.app(scope, limited, send)
        else:
            await self.app(scope, limited, send)

    def _check_origin(self, headers: Headers) -> None:
        """Refuse requests of web pages: a browser on this computer reaches a server at the loopback address.

        A name of another host that leads here (DNS rebinding) is refused, too.
        """
        host = _host_of(f"//{headers.get('host', '')}")
        if is_loopback(self.settings.host) and not is_loopback(host):
            raise RequestError(400, f"the host {host[:100]!r} is not this computer; use http://127.0.0.1")
        if (origin := headers.get("origin")) is not None and _host_of(origin) != host:
            raise RequestError(403, "requests of web pages of other hosts are refused; use a program")

    def _client(self, headers: Headers, path: str) -> str:
        """Return the id of the client."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if path in OPEN or (not self.tokens.values and path in OPEN_WITHOUT_TOKENS):
            return NO_CLIENT
        if token:
            client = client_of(token)
            if self.tokens.accept(token) or (not self.tokens.values and self.knows(client)):
                return client
            raise RequestError(401, "the token is wrong; check the token of the client")
        how = "ask the operator for it" if self.tokens.values else "get one with POST /clients"
        raise RequestError(401, f"the request has no token; {how}, and send Authorization: Bearer TOKEN")

    def _limited(self, receive: Receive, limit: int) -> Receive:
        """Return a function that receives a body up to the limits of size and time."""
        size, complete, end = 0, False, time.monotonic() + self.settings.max_seconds

        async def receive_some() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise RequestError(408, "the body did not arrive in time; send it without pauses") from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > limit:
                raise self._too_large()
            return message

        return receive_some

    def _too_large(self) -> RequestError:
        return RequestError(
            413, f"the request is larger than {self.settings.max_mb:g} MB; send a part of the image, or raise --max-mb"
        )


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
