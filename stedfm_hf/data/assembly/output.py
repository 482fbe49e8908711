"""Output folder of a data set, and the result of the commands that write one."""

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
"""Files and folders of a data set, except the manifest."""
ASSEMBLED = ".assembled"
"""Temporary folder of incomplete results."""


@dataclass(frozen=True)
class DatasetSummary(OutputResult):
    """Data set that a command wrote.

    Attributes:
        crops: Number of crops in each split.
        sources: Number of source images in each split.
        labels: Names of the classes.
        notes: Notes that the command printed, such as splits without a class.
    """

    crops: dict[str, int]
    sources: dict[str, int]
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the number of crops, and the reasons for skipped inputs."""
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
        """Return plain data, with the reasons for failed inputs."""
        counts = {"crops": self.crops, "sources": self.sources, "labels": list(self.labels)}
        return super().to_json() | counts | {"failures": self.manifest.failures()}


@contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Convert errors of the file system into a message with a way out.

    Args:
        output: Folder that is written.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); fix this, then run the same command again to "
            "resume"
        ) from error


@contextmanager
def open_dataset(
    output: Path,
    command: str,
    settings: Any,
    *,
    resolved: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    temporary: Sequence[str] = (),
) -> Iterator[Output]:
    """Open the output folder of a data set; see `stedfm_hf.runs.output.open_output`.

    Failed inputs of a finished data set are not tried again, because all other inputs would have to be read again,
    too. The parts are removed when the block ends without an error.

    Args:
        output: Folder of the data set.
        command: Name of the command.
        settings: Settings of the command.
        resolved: Values that affect the result but are not in the settings.
        options: Further entries for the options of the manifest.
        temporary: Names of further temporary files or folders of the command in the output folder.

    Yields:
        The open output, with its manifest.

    Raises:
        UserError: The folder cannot be used, or the disk is full.
    """
    with disk_errors(output):
        with open_output(
            output,
            command,
            settings,
            results=RESULTS,
            temporary=[FOLDER, ASSEMBLED, *temporary],
            resolved=resolved,
            options=options,
            overwrite=settings.overwrite,
            retries=False,
        ) as opened:
            if opened.finished:
                opened.report_finished()
            else:
                opened.manifest.items.clear()  # the parts hold the status of the items
            yield opened
        Staging(output).remove()


def read_summary(output: Path, manifest: Manifest) -> DatasetSummary:
    """Read the result of a finished data set.

    Args:
        output: Folder of the data set.
        manifest: Manifest of the run that wrote it.

    Returns:
        The result, without notes.

    Raises:
        UserError: The index is damaged, or a shard is missing.
    """
    index = read_json(output / INDEX_FILE)
    try:
        shards = {split: each for split, each in index["splits"].items()}
        if missing := [
            shard["file"] for each in shards.values() for shard in each if not (output / shard["file"]).exists()
        ]:
            raise UserError(f"{output}: {missing[0]} is missing; write the data set again with --overwrite")
        crops = {split: sum(sum(shard["row_groups"]) for shard in each) for split, each in shards.items()}
        return DatasetSummary(output, manifest, crops, index["sources"], tuple(index["labels"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{output / INDEX_FILE}: damaged, or written by another version ({error!r}); write the data set again "
            "with --overwrite"
        ) from error


def print_failures(manifest: Manifest, limit: int = 10) -> None:
    """Print the reasons for failed inputs.

    Args:
        manifest: Manifest of the run.
        limit: Largest number of inputs to print.
    """
    failures = list(manifest.failures().items())
    for item, reason in failures[:limit]:
        print_note(f"error: {item}: {reason}")
    if len(failures) > limit:
        print_note(f"error: {len(failures) - limit} more inputs failed; see manifest.json")
