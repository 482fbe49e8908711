"""Segment the fields of a batch of sources, in this process or in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stedfm_hf.data.sources import Source
from stedfm_hf.inference.field_records import FieldParts
from stedfm_hf.inference.field_task import FieldTask
from stedfm_hf.inference.fields import read_fields
from stedfm_hf.inference.source_batches import Processed
from stedfm_hf.runs import Progress, some_of
from stedfm_hf.runs.attempts import DEADLY, attempt
from stedfm_hf.runs.manifest import status_of


@dataclass(frozen=True)
class FieldBatch:
    """Function that segments the fields of some sources, and writes their files and a part for each field.

    Attributes:
        parts: Parts of the fields that are done.
        task: Function that segments a field.
        series: Series of each file to read, or None.
        channel: Channel to read, or None.
        scaling: Settings of the processor.
        survives: Whether the attempts at a batch are recorded, so that sources that kill their worker are found.
    """

    parts: FieldParts
    task: FieldTask
    series: str | int | None
    channel: str | int | None
    scaling: dict[str, Any]
    survives: bool = False

    def __call__(self, sources: Sequence[Source], progress: Progress | None = None) -> Processed:
        """Segment sources.

        Args:
            sources: Sources.
            progress: Progress to update with every source.
        """
        done = Processed()
        by_path = {source.path: source for source in sources}
        folder = self.parts.store.folder if self.survives else None
        with attempt(by_path, folder, lambda source: self._segment(source, Processed())) as given_up:
            for source in sources:
                if source.path in given_up:
                    done.fail(source.path, DEADLY)
                else:
                    self._segment(source, done)
                if progress is not None:
                    progress.update()
        return done

    def _segment(self, source: Source, done: Processed) -> None:
        """Segment the fields of a source that are not done yet, and record the status of the source.

        A ValueError or MemoryError fails this source only. Fields without signal are segmented with a warning.
        """
        number = 0
        without_signal: dict[str, list[int]] = {}
        read_with: dict[str, None] = {}
        task = replace(self.task, shows_rows=not self.survives)
        try:
            for field in read_fields(source, self.task.segmenter, self.series, self.channel, self.scaling):
                number += 1
                read_with |= dict.fromkeys(field.notes)
                if why := field.no_signal():
                    without_signal.setdefault(why, []).append(number)
                if not self.parts.has(source.path, number):
                    self.parts.add(source, number, *task(field, source.path, number))
        except (ValueError, MemoryError) as error:
            done.fail(source.path, str(error) or type(error).__name__)
            return
        notes = [] if number == 1 else [f"{number} fields"]
        for why, numbers in without_signal.items():
            where = "" if number == 1 else f" in field{'' if len(numbers) == 1 else 's'} {some_of(numbers)}"
            notes.append(f"no signal{where} ({why})")
            done.messages.append(f"stedfm: {source.path}: {notes[-1]}")
        done.notes[source.path] = tuple(read_with)
        note = "; ".join(filter(None, [", ".join(notes), *read_with])) or None
        done.statuses[source.path] = status_of("done", note, source.stamp)
