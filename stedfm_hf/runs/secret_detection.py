"""Tokens and private keys in files and texts, which must not be published."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_START = rb"(?<![A-Za-z0-9])"
_SECRETS = {
    "a token of the Hub": re.compile(
        _START + rb"(?:(?:hf|api_org)_[A-Za-z0-9]{30,}|hf_(?:oauth|jwt|app)_[A-Za-z0-9._-]{20,})"
    ),
    "a token of GitHub": re.compile(_START + rb"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    "a key of AWS": re.compile(_START + rb"A[KS]IA[0-9A-Z]{16}(?![0-9A-Z])"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_URL = re.compile(r"([a-z][a-z0-9+.-]*://)(?:[^\s/@'\"]*@)?([^\s?'\"]*)", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s?'\"]+\?)[^\s'\"]*[^\s'\".,:;)]", re.IGNORECASE)
"""User and password of a URL, and its query, which may hold a signature or token."""
_BLOCK = 2**24
_LONGEST = 4096
"""Length of the overlap of two blocks, in bytes: longer than any secret."""


def secrets_in_text(text: str) -> list[str]:
    """Return the kinds of secrets in a text, sorted.

    Example:
        >>> secrets_in_text("token: hf_" + "a" * 34)
        ['a token of the Hub']
    """
    content = text.encode("utf-8", errors="surrogateescape")
    return sorted(kind for kind, pattern in _SECRETS.items() if pattern.search(content))


def without_secrets(text: str) -> str:
    """Remove the secrets in a text, so that it can be printed: tokens, keys, and users and queries of URLs.

    Example:
        >>> without_secrets("hf_" + "a" * 34 + " in /home/ada")
        '[secret] in /home/ada'
        >>> without_secrets("https://ada:password@example.org/a.tif?signature=1: no such file")
        'https://example.org/a.tif?[secret]: no such file'
    """
    if "://" in text:
        text = _QUERY.sub(r"\1[secret]", _URL.sub(r"\1\2", text))
    content = text.encode("utf-8", errors="surrogateescape")
    for pattern in _SECRETS.values():
        content = pattern.sub(b"[secret]", content)
    return content.decode("utf-8", errors="surrogateescape")


def secrets_in_file(path: Path) -> list[str]:
    """Return the kinds of secrets in a file, also in the members of a zip, sorted.

    Args:
        path: File of any size; it is read in blocks.
    """
    with path.open("rb") as file:
        found = set(_secrets(file))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    found |= set(_secrets(file))
    return sorted(found)


def _secrets(file: IO[bytes]) -> Iterator[str]:
    """Yield the kinds of secrets in an open file."""
    before = b""
    while block := file.read(_BLOCK):
        text = before + block
        yield from (kind for kind, pattern in _SECRETS.items() if pattern.search(text))
        before = text[-_LONGEST:]
