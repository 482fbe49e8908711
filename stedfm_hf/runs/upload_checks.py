"""What must not be published: pickles, secrets, absolute paths, and files from outside of the folder."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ABSOLUTE_PATH = re.compile(
    r'(?:^|")(?:/[^"/\s]+/|~/|[A-Za-z]:[\\/]|\\\\)|(?<![\w.])/(?:home|Users)/\w|(?<!\w)[A-Za-z]:\\'
)
"""An absolute path as a whole line or as a value in JSON; home folders also inside a text."""
_SECRETS = {
    "a token of the Hub": re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b"),
    "a token of GitHub": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    "a key of AWS": re.compile(rb"\bAKIA[0-9A-Z]{16}\b"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".bin"}
_TEXTS = {".md", ".json", ".yaml", ".yml", ".txt", ".csv", ".toml", ".cfg", ".ini"}
_MAX_FILE_BYTES = 50 * 10**9
"""Largest file that the Hub recommends."""
_BLOCK = 2**24
_LONGEST_SECRET = 200


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
    if not path.resolve().is_relative_to(folder.resolve()):
        yield "is a link to a file outside of the folder; replace it by the file"
        return
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        yield f"has {size / 1e9:.0f} GB, more than the Hub takes; save the weights in shards"
    if is_pickle(path):
        yield "is a pickle, which can run code when it is opened; save weights as safetensors, and leave it out"
        return
    for kind in _secrets(path):
        yield f"contains {kind}; remove it, and replace it where it is used, because it may have been seen"
    if path.suffix.lower() in _TEXTS and not allow_paths:
        if shown := find_path(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            yield f"contains an absolute path ({shown}); remove it, or give --allow-paths to publish it"


def find_path(texts: Iterable[str]) -> str | None:
    """Return the surroundings of the first absolute path in texts, or None."""
    for text in texts:
        if found := ABSOLUTE_PATH.search(text):
            return text[max(0, found.start() - 10) : found.end() + 30]
    return None


def is_pickle(path: Path) -> bool:
    """Return whether a file is a pickle by its suffix or content, also inside an archive of PyTorch."""
    if path.suffix.lower() in _PICKLES:
        return not _is_openvino(path)
    if path.suffix.lower() == ".safetensors":  # may begin like a pickle: with the length of its header
        return False
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        return True
    if head != b"PK" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".pkl") for name in archive.namelist())


def _is_openvino(path: Path) -> bool:
    """Return whether a file holds the weights of an OpenVINO model, which also end in .bin."""
    return path.suffix.lower() == ".bin" and path.with_suffix(".xml").is_file()


def _secrets(path: Path) -> Iterator[str]:
    """Yield the kinds of secrets in a file; large files are read in overlapping blocks."""
    found: set[str] = set()
    with path.open("rb") as file:
        before = b""
        while block := file.read(_BLOCK):
            found |= {kind for kind, pattern in _SECRETS.items() if pattern.search(before + block)}
            before = block[-_LONGEST_SECRET:]
    yield from sorted(found)
