"""The folder of a data set: begun, resumed, finished or refused, with the same messages for every producer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.data.assembly.staging import FOLDER, Staging
from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.runs import Manifest, UserError, print_note, read_json
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.runs.result import OutputResult

RESULTS = ("data", "preview", "figures", INDEX_FILE, "README.md")
"""What a data set consists of, besides its manifest."""
ASSEMBLED = ".assembled"
"""Folder of the results until they are complete."""


@dataclass(frozen=True)
class DatasetSummary(OutputResult):
    """Data set that a command made.

    Attributes:
        crops: Number of crops in each split.
        sources: Number of source images in each split.
        labels: Names of the classes.
        notes: What the splits lack, and what else the command printed.
    """

    crops: dict[str, int]
    sources: dict[str, int]
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Say how many crops there are, and why inputs were skipped."""
        splits = ", ".join(f"{rows} {split}" for split, rows in self.crops.items())
        counts = self.manifest.counts()
        others = "".join(f", {counts[state]} {state}" for state in ("skipped", "failed") if counts[state])
        lines = [f"{self.output}: {sum(self.crops.values())} crops ({splits}){others}"]
        reasons = Counter(status.reason for status in self.manifest.items.values() if status.state == "skipped")
        lines += [f"  skipped: {count} x {reason}" for reason, count in reasons.most_common(5)]
        if len(reasons) > 5:
            lines.append(f"  and {len(reasons) - 5} more reasons: see {self.output / 'manifest.json'}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the reason of every failed input."""
        known = {"crops": self.crops, "sources": self.sources, "labels": list(self.labels)}
        return super().to_json() | known | {"failures": self.manifest.failures()}


@contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Say of a full or broken disk how to continue.

    Raises:
        UserError: Instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); correct that, then run the same command again "
            "to resume"
        ) from error


@contextmanager
def open_dataset(
    output: Path,
    command: str,
    settings: Any,
    *,
    resolved: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    others: Sequence[str] = (),
) -> Iterator[Output]:
    """Open the folder of a data set; see `stedfm_hf.runs.output.open_output`.

    Failed inputs of a finished data set are not tried again: all others would have to be read again, too. The parts
    are removed when the block ends.

    Args:
        output: Folder of the data set.
        command: Name of the command.
        settings: Settings of the command.
        resolved: What decides the result and is not in the settings.
        options: What else is recorded.
        others: Names of what else the command may have written there.

    Raises:
        UserError: The folder cannot be used, or the disk is full.
    """
    with disk_errors(output):
        with open_output(
            output,
            command,
            settings,
            results=RESULTS,
            temporary=[FOLDER, ASSEMBLED, *others],
            resolved=resolved,
            options=options,
            overwrite=settings.overwrite,
            retries=False,
        ) as opened:
            if opened.finished:
                print_note(f"{output}: is finished; replace it with --overwrite")
            else:
                opened.manifest.items.clear()  # the parts tell
            yield opened
        Staging(output).remove()


def read_summary(output: Path, manifest: Manifest) -> DatasetSummary:
    """Return what is in a finished data set.

    Args:
        output: Folder of the data set.
        manifest: Record of the run that made it.

    Raises:
        UserError: Its index is damaged, or a shard is missing.
    """
    index = read_json(output / INDEX_FILE)
    try:
        shards = {split: each for split, each in index["splits"].items()}
        if missing := [
            shard["file"] for each in shards.values() for shard in each if not (output / shard["file"]).exists()
        ]:
            raise UserError(f"{output}: lacks {missing[0]}; make it again with --overwrite")
        crops = {split: sum(sum(shard["row_groups"]) for shard in each) for split, each in shards.items()}
        return DatasetSummary(output, manifest, crops, index["sources"], tuple(index["labels"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{output / INDEX_FILE}: is damaged ({error!r}); make the data set again with --overwrite"
        ) from error


def tell_failures(manifest: Manifest, most: int = 10) -> None:
    """Print why inputs failed."""
    failures = list(manifest.failures().items())
    for item, reason in failures[:most]:
        print_note(f"error: {item}: {reason}")
    if len(failures) > most:
        print_note(f"error: {len(failures) - most} more failed; see manifest.json")
