"""Scores of images that are known already, so that an interrupted run resumes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.evaluation.segmentation.scored import Scored, Scoring, scored_of, table_of
from stedfm_hf.runs.parts import PartStore

PARTS = "scores.parts"
SECONDS = 30.0
"""Between two times that scores are written."""


class ScoreCache:
    """Scores by method and image, and the parts they are kept in.

    Args:
        folder: Folder of the report. The caller has checked that its settings are the same.
        table: Name of the table that a finished run leaves there.
        classes: Names of the classes.
        scoring: Rules of the scores.
    """

    def __init__(self, folder: Path, table: str, classes: Sequence[str], scoring: Scoring) -> None:
        self.classes, self.scoring, self.store = classes, scoring, PartStore(folder / PARTS)
        self._scored: dict[tuple[str, str], Scored] = {}
        self._unsaved: list[Scored] = []
        if (folder / table).is_file():
            try:
                self._take(pq.read_table(folder / table))
            except (pa.ArrowInvalid, KeyError):  # written by another program, or cut off by a full disk
                self._scored = {}
        for part in self.store:
            self._take(part.table())
        self._saved = time.monotonic()

    def _take(self, table: pa.Table) -> None:
        self._scored |= {(each.method, each.image): each for each in scored_of(table, self.classes, self.scoring)}

    def has(self, method: str, image: str) -> bool:
        """Whether an image is scored."""
        return (method, image) in self._scored

    def add(self, scored: Scored) -> None:
        """Keep the scores of an image; they are written now and then."""
        self._scored[scored.method, scored.image] = scored
        self._unsaved.append(scored)
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def of(self, method: str, images: Sequence[str]) -> list[Scored]:
        """Return the scores of a method, in the order of the images."""
        return [self._scored[method, image] for image in images]

    def save(self) -> None:
        """Write the scores that are not written yet."""
        if self._unsaved:
            self.store.write(self.store.next_name(), table_of(self._unsaved, self.classes), {})
        self._unsaved, self._saved = [], time.monotonic()
