"""Which images are scored already: kept in the table of the report, so that a run that was stopped goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.evaluation.segmentation.scored import Scored, Scoring, scored_of, table_of
from stedfm_hf.runs import atomic_path

SECONDS = 30.0
"""Between two times that the table is written."""


class Ledger:
    """Scores by method and image, and the file they are kept in.

    Args:
        path: of the table; what it holds is taken over. The caller has checked that its settings are the same.
        classes: names of the classes.
        scoring: the rules.
    """

    def __init__(self, path: Path, classes: Sequence[str], scoring: Scoring) -> None:
        self.path, self.classes = path, classes
        self._scored: dict[tuple[str, str], Scored] = {}
        if path.is_file():
            try:
                for each in scored_of(pq.read_table(path), classes, scoring):
                    self.add(each)
            except (pa.ArrowInvalid, KeyError):  # of another program, or cut off by a full disk: scored again
                self._scored = {}
        self._saved, self._unsaved = time.monotonic(), False

    def has(self, method: str, image: str) -> bool:
        """Whether an image is scored."""
        return (method, image) in self._scored

    def add(self, scored: Scored) -> None:
        """Take the scores of an image."""
        self._scored[scored.method, scored.image] = scored
        self._unsaved = True

    def of(self, method: str, images: Sequence[str]) -> list[Scored]:
        """Scores of a method, in the order of the images."""
        return [self._scored[method, image] for image in images]

    def save_at_times(self) -> None:
        """Write the table if that was long ago."""
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def save(self) -> None:
        """Write the table."""
        if self._unsaved:
            with atomic_path(self.path) as temporary:
                pq.write_table(table_of(list(self._scored.values()), self.classes), temporary, compression="zstd")
            self._saved, self._unsaved = time.monotonic(), False
