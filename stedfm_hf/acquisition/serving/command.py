"""`stedfm serve`: serve finders until the server is stopped."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec

from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.acquisition.serving.tokens import Tokens
from stedfm_hf.runs import UserError, print_note
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import find_model

LIBRARIES = ("fastapi", "uvicorn", "python_multipart")
MOST_CONNECTIONS = 256
"""Number of connections at the same time; more are refused."""


@dataclass(frozen=True)
class ServeResult(Result):
    """Result of `serve`.

    Attributes:
        address: Address that was served.
    """

    address: str

    def summary(self) -> str:
        """Return one line."""
        return "stopped; the finders of all clients are kept"

    def to_json(self) -> dict[str, str]:
        """Return the address."""
        return {"address": self.address}


@takes_settings(ServeSettings)
def serve(settings: ServeSettings) -> ServeResult:
    """Serve finders of structures over HTTP until Ctrl-C or SIGTERM.

    `stedfm_hf.acquisition.Client` and any program that speaks HTTP can use it; the page `/docs` lists the routes.

    Returns:
        The address.

    Raises:
        UserError: If FastAPI or uvicorn is not installed, a token is wrong or missing, the model is not available, or
            the port is not free.
    """
    for name in LIBRARIES:
        if find_spec(name) is None:
            raise UserError(f'the server needs {name}, which is not installed; pip install "stedfm-hf[serve]"')
    Tokens.load(settings)
    model = find_model(settings.model)

    with _listen(settings.host, settings.port) as listening:
        print_note("loading the model")

        # Errors up to here are reported at once: these modules import FastAPI and torch, which takes seconds.
        import uvicorn

        from stedfm_hf.acquisition.serving.application import make_app

        config = uvicorn.Config(
            make_app(settings, model),
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{host}:{listening.getsockname()[1]}"
        print_note(f"the server is at {address} (stop it with Ctrl-C)")
        with suppress(KeyboardInterrupt):  # uvicorn has ended by then
            uvicorn.Server(config).run(sockets=[listening])
    return ServeResult(address)


def _listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        UserError: If it is not free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"port {port} at {host} is not available ({error.strerror}); choose another with --port"
        ) from error
