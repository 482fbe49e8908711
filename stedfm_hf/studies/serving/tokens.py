"""Unguessable tokens of private links, and names of images that say nothing about the files."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256


def new_token() -> str:
    """Return a random token of 32 characters for a link, with 192 bits of randomness."""
    return secrets.token_urlsafe(24)


def new_id() -> str:
    """Return a random name of a participant for tables, from which no link can be derived."""
    return secrets.token_hex(6)


def digest(token: str) -> str:
    """Return what is stored of a token: its SHA-256, from which it cannot be computed.

    Example:
        >>> digest("abc")[:16]
        'ba7816bf8f01cfea'
    """
    return sha256(token.encode("utf-8", "replace")).hexdigest()


def is_token(given: str, expected: str) -> bool:
    """Return whether two tokens are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(digest(given), digest(expected))


def opaque_name(secret: str, participant: str, path: str) -> str:
    """Return the name under which a participant sees an image; other participants see it under other names.

    Args:
        secret: Secret of the study.
        participant: Id of the participant.
        path: Path of the image in the study file.
    """
    words = "\0".join((participant, path)).encode("utf-8", "surrogatepass")
    return hmac.new(secret.encode(), words, sha256).hexdigest()[:24]
