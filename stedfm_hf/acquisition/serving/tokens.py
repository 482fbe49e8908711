"""Tokens of the clients of a server, and the identity of a client."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.runs import UserError
from stedfm_hf.runs.addresses import is_loopback

SHORTEST = 16
"""Smallest number of characters of a token."""
VARIABLES = ("STEDFM_TOKEN", "STEDFM_TOKENS")
"""Environment variables with tokens, separated by commas."""


def client_of(token: str) -> str:
    """Return the id of the client with a token; it does not reveal the token.

    Example:
        >>> client_of("an example of a token")
        '02c5bdb273cc0db0e98444ee1d1e2af9504caf66'
    """
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:40]


@dataclass(frozen=True)
class Tokens:
    """Tokens that a server accepts.

    Attributes:
        values: Tokens; without any, each client asks the server for one.
    """

    values: tuple[str, ...]

    @classmethod
    def load(cls, settings: ServeSettings, environment: Mapping[str, str] = os.environ) -> Tokens:
        """Read the tokens from the file and from the environment.

        Args:
            settings: Settings of the server.
            environment: Environment variables.

        Raises:
            UserError: If a token is too short, the file cannot be read, or there is none for an address that other
                computers reach.
        """
        found = [each for name in VARIABLES for each in environment.get(name, "").split(",")]
        if settings.tokens is not None:
            try:
                found += Path(settings.tokens).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"--tokens {settings.tokens}: cannot be read ({error}); check the path") from error
        values = tuple(dict.fromkeys(each.strip() for each in found if each.strip()))
        if any(len(each) < SHORTEST or not each.isascii() for each in values):
            raise UserError(
                f"a token is too short; use at least {SHORTEST} letters, digits and signs, such as "
                f"{secrets.token_urlsafe(24)}"
            )
        if settings.tokens is not None and not values:
            raise UserError(f"--tokens {settings.tokens}: holds no token; write one in each line")
        if not values and not is_loopback(settings.host):
            raise UserError(
                f"--host {settings.host}: other computers reach this address, and there is no token; give a file with "
                "--tokens, or listen at 127.0.0.1"
            )
        return cls(values)

    def accept(self, token: str) -> bool:
        """Return whether a token is one of the tokens; the time does not depend on how much of it is right."""
        given = token.encode("utf-8", "surrogateescape")
        return any([hmac.compare_digest(given, each.encode()) for each in self.values])
