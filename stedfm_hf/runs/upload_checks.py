"""What must not be published: pickles, secrets, absolute paths, and files from outside of the folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.runs.pickle_detection import is_pickle
from stedfm_hf.runs.secret_detection import secrets_in_file, without_secrets

ABSOLUTE_PATH = re.compile(
    r'(?:^|")(?:/[^"/\s]+/|~/|[A-Za-z]:[\\/]|\\\\)|(?<![\w.])/(?:home|Users)/\w|(?<!\w)[A-Za-z]:\\'
)
"""An absolute path as a whole line or as a value in JSON; home folders also inside a text."""
_TEXTS = {".md", ".json", ".yaml", ".yml", ".txt", ".csv", ".toml", ".cfg", ".ini"}
_MAX_FILE_BYTES = 50 * 10**9
"""Largest file that the Hub recommends."""


@dataclass(frozen=True)
class Finding:
    """Reason not to publish a folder.

    Attributes:
        file: Path of the file, relative to the folder.
        problem: What is wrong, and what to do.
    """

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


def check_files(folder: Path, names: Iterable[str], *, allow_paths: bool = False) -> list[Finding]:
    """Return the reasons not to publish files.

    Args:
        folder: Folder of the files.
        names: Paths relative to the folder.
        allow_paths: Whether texts may contain absolute paths.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "notes.txt").write_text("made of /home/ada/x")
        >>> print(*check_files(folder, ["notes.txt"]))
        notes.txt: contains an absolute path (made of /home/ada/x); remove it, or give --allow-paths to publish it
    """
    return [Finding(name, problem) for name in names for problem in _problems(folder, name, allow_paths)]


def _problems(folder: Path, name: str, allow_paths: bool) -> Iterator[str]:
    """Yield the problems of one file."""
    path = folder / name
    if is_outside(folder, name):
        yield "is a link to a file outside of the folder; replace it by the file"
        return
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        yield f"has {size / 1e9:.0f} GB, more than the Hub takes; save the weights in shards"
    if is_pickle(path):
        yield "is a pickle, which can run code when it is opened; save weights as safetensors, and leave it out"
        return
    for kind in secrets_in_file(path):
        yield secret_problem(kind)
    if path.suffix.lower() in _TEXTS and not allow_paths:
        if shown := find_path(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            yield f"contains an absolute path ({shown}); remove it, or give --allow-paths to publish it"


def is_outside(folder: Path, name: str) -> bool:
    """Return whether a file of a folder is a link to a file outside of it."""
    return not (folder / name).resolve().is_relative_to(folder.resolve())


def secret_problem(kind: str) -> str:
    """Return the problem of a file with a secret, such as `a token of the Hub`."""
    return f"contains {kind}; remove it, and replace it where it is used, because it may have been seen"


def find_path(texts: Iterable[str]) -> str | None:
    """Return the surroundings of the first absolute path in texts, without secrets, or None."""
    for text in texts:
        if ABSOLUTE_PATH.search(text):
            shown = without_secrets(text)  # before it is cut: a part of a token would not be found
            found = ABSOLUTE_PATH.search(shown)
            return _excerpt(shown, *found.span()) if found else shown[:40]
    return None


def _excerpt(text: str, start: int, end: int) -> str:
    """Return a part of a text with up to 10 characters before and 30 after it, cut at spaces if there are any."""
    before, after = text[max(0, start - 10) : start], text[end : end + 30]
    if start > 10:
        before = f"... {before.partition(' ')[2]}"
    if len(text) > end + 30:
        after = f"{after.rpartition(' ')[0] or after} ..."
    return before + text[start:end] + after
