"""Answers of a study in SQLite: rows are only added, each in one transaction that is on the disk when it ends."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.wording import some_of
from stedfm_hf.studies.plan import Trial
from stedfm_hf.studies.serving.tokens import digest, new_id, new_token
from stedfm_hf.studies.study import Study, parse_study

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE participants (id TEXT PRIMARY KEY, token_sha256 TEXT NOT NULL UNIQUE, invited_at TEXT NOT NULL) STRICT;
CREATE TABLE starts (participant TEXT PRIMARY KEY REFERENCES participants, started_at TEXT NOT NULL) STRICT;
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    participant TEXT NOT NULL REFERENCES participants,
    trial INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    stimulus TEXT NOT NULL,
    options TEXT NOT NULL,
    answer TEXT NOT NULL,
    response_s REAL NOT NULL,
    confidence INTEGER,
    answered_at TEXT NOT NULL,
    UNIQUE (participant, trial, attempt)
) STRICT;
CREATE TABLE undos (
    participant TEXT NOT NULL,
    trial INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    undone_at TEXT NOT NULL,
    PRIMARY KEY (participant, trial, attempt),
    FOREIGN KEY (participant, trial, attempt) REFERENCES answers (participant, trial, attempt)
) STRICT;
"""
_KEPT = "".join(
    f"CREATE TRIGGER {table}_{event} BEFORE {event} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are only added'); END;\n"
    for table in ("answers", "undos", "starts")
    for event in ("UPDATE", "DELETE")
)
_WAIT_S = 10.0
"""Time that a transaction waits for others, in seconds."""


@dataclass(frozen=True)
class Answer:
    """Stored answer.

    Attributes:
        participant: Id of the participant.
        trial: Number of the trial in the participant's plan.
        attempt: Number of earlier answers to the same trial, all of which were undone.
        kind: `trial`, `practice` or `attention`.
        stimulus: Id of the stimulus; "" for comparisons of `rank`.
        options: Possible answers, from left to right.
        answer: One of the options.
        response_s: Time from display to answer, in seconds.
        confidence: 1 to 5, or None.
        answered_at: Time of the answer (UTC).
        undone: Whether the participant took the answer back.
    """

    participant: str
    trial: int
    attempt: int
    kind: str
    stimulus: str
    options: tuple[str, ...]
    answer: str
    response_s: float
    confidence: int | None
    answered_at: datetime
    undone: bool


class Transaction:
    """Open transaction; see `Store.writing`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def history(self, participant: str | None = None) -> list[Answer]:
        """Return the answers of a participant, or of all, in the order in which they were given."""
        rows = self._connection.execute(
            "SELECT participant, trial, attempt, kind, stimulus, options, answer, response_s, confidence, answered_at,"
            " undone_at IS NOT NULL FROM answers LEFT JOIN undos USING (participant, trial, attempt)"
            " WHERE participant = ? OR ? IS NULL ORDER BY number",
            (participant, participant),
        )
        return [
            Answer(
                *(who, trial, attempt, kind, stimulus, tuple(json.loads(options)), answer, response_s, confidence),
                answered_at=datetime.fromisoformat(time),
                undone=bool(undone),
            )
            for who, trial, attempt, kind, stimulus, options, answer, response_s, confidence, time, undone in rows
        ]

    def add_answer(
        self, participant: str, trial: Trial, attempt: int, answer: str, response_s: float, confidence: int | None
    ) -> None:
        """Add an answer to a trial; see `Answer` for the values."""
        self._connection.execute(
            "INSERT INTO answers (participant, trial, attempt, kind, stimulus, options, answer, response_s,"
            " confidence, answered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(participant, trial.number, attempt, trial.kind, trial.stimulus, json.dumps(trial.options), answer),
                *(response_s, confidence, _now()),
            ),
        )

    def add_undo(self, answer: Answer) -> None:
        """Add a row that takes an answer back."""
        self._connection.execute(
            "INSERT INTO undos VALUES (?, ?, ?, ?)", (answer.participant, answer.trial, answer.attempt, _now())
        )

    def add_start(self, participant: str) -> None:
        """Record that a participant agreed and started; a second time changes nothing."""
        self._connection.execute("INSERT OR IGNORE INTO starts VALUES (?, ?)", (participant, _now()))

    def has_started(self, participant: str) -> bool:
        """Return whether a participant has started."""
        found = self._connection.execute("SELECT 1 FROM starts WHERE participant = ?", (participant,))
        return found.fetchone() is not None

    def participants(self) -> list[tuple[str, datetime | None]]:
        """Return the ids of all invited participants, with the time at which each started."""
        rows = self._connection.execute(
            "SELECT id, started_at FROM participants LEFT JOIN starts ON participant = id ORDER BY invited_at, id"
        )
        return [(name, None if time is None else datetime.fromisoformat(time)) for name, time in rows]

    def invite(self, number: int) -> list[str]:
        """Add participants, and return the tokens of their links, which are not stored."""
        tokens = [new_token() for _ in range(number)]
        self._connection.executemany(
            "INSERT INTO participants VALUES (?, ?, ?)", [(new_id(), digest(token), _now()) for token in tokens]
        )
        return tokens


class Store:
    """File of answers.

    Every call opens a connection, so that threads and processes share the file without sharing state.

    Args:
        path: File of `create_store`.

    Raises:
        UserError: If there is no such file, or it is something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: no such file; `stedfm study serve` makes it, start that first")
        try:
            self.facts()
        except sqlite3.Error as error:
            raise UserError(f"{path}: is not a file of answers ({error}); give that of `study serve`") from error

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Open a transaction that sees and adds rows, one at a time; an error takes everything back."""
        with closing(_connect(self.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Open a transaction that sees the state of one moment."""
        with closing(_connect(self.path)) as connection:
            connection.execute("BEGIN")
            yield Transaction(connection)

    def facts(self) -> dict[str, str]:
        """Return what is known about the study: its content, the SHA-256 of its images, and its secrets."""
        with closing(_connect(self.path)) as connection:
            return dict(connection.execute("SELECT name, value FROM facts").fetchall())

    def study(self) -> Study:
        """Return the study whose answers are stored."""
        return parse_study(json.loads(self.facts()["study"]))

    def participant(self, token: str) -> str | None:
        """Return the id of the participant whose link has a token, or None."""
        with closing(_connect(self.path)) as connection:
            row = connection.execute("SELECT id FROM participants WHERE token_sha256 = ?", (digest(token),)).fetchone()
        return None if row is None else str(row[0])


def create_store(
    path: str | os.PathLike[str], study: Study, images: Mapping[str, str], address: str | None = None
) -> Store:
    """Open the file of answers of a study, which is made if it does not exist.

    Args:
        path: File.
        study: The study.
        images: SHA-256 of each image by its path in the study file.
        address: Address of the server, for links that are made later.

    Returns:
        The store.

    Raises:
        UserError: If the file is something else, cannot be written, or holds answers to another version of the study.
    """
    given = {"study": _plain(study), "images": dict(images)}
    texts = {name: json.dumps(value, ensure_ascii=False, sort_keys=True) for name, value in given.items()}
    if address is not None:
        texts["address"] = address
    if not Path(path).exists() or Path(path).stat().st_size == 0:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with closing(_connect(path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}{_KEPT} COMMIT;")
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: cannot be written ({error}); choose another file with --answers") from error
        texts |= {"secret": new_token(), "join": new_token()}
    store = Store(path)
    stored = store.facts()
    with store.reading() as transaction:
        has_answers = bool(transaction.history())
    if has_answers:
        known = {name: json.loads(stored[name]) for name in given}
        if changed := [
            *(name for name, value in given["study"].items() if value != known["study"].get(name)),
            *(name for name, value in given["images"].items() if value != known["images"].get(name)),
        ]:
            raise UserError(
                f"{path}: holds answers to another version of the study ({some_of(changed)} changed); restore the "
                "study file and its images, or choose another file with --answers"
            )
    try:
        with closing(_connect(path)) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", texts.items())
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another file with --answers") from error
    return store


def kept(history: Sequence[Answer]) -> list[str]:
    """Return the answers that were not undone, in order."""
    return [each.answer for each in history if not each.undone]


def _connect(path: str | os.PathLike[str]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    # An answer is on the disk before the participant sees the next trial, also if the power fails.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _plain(study: Study) -> dict[str, Any]:
    """Return the content of a study file as JSON gives it back."""
    values = {name: value for name, value in asdict(study).items() if value not in ("", (), {}, None)}
    values["exclude"] = {name: value for name, value in values["exclude"].items() if value is not None}
    for name in ("stimuli", "practice", "attention"):
        if name in values:
            values[name] = [{key: each for key, each in one.items() if each} for one in values[name]]
    return json.loads(json.dumps(values))


def _now() -> str:
    return datetime.now(UTC).isoformat()
