"""`stedfm data stats`: counts, intensities and figures of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from stedfm_hf.data.repository.files import SplitFiles, check_repository_name, find_split, find_split_names
from stedfm_hf.data.repository.layout import CROP_COLUMNS
from stedfm_hf.data.repository.shard_reader import ShardReader
from stedfm_hf.data.settings import StatsSettings
from stedfm_hf.runs import Progress, print_note, read_json, write_json
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.wording import text_table

COMMAND = "data stats"
_RECORD = "stats.json"
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class DatasetStats(Result):
    """Statistics of a data set.

    Attributes:
        record: Counts and intensities, see `to_json`.
        output: Folder with stats.json and the figures, or None.
    """

    record: dict[str, Any]
    output: Path | None = None

    def summary(self) -> str:
        """Return a table of the counts and one of the pixels."""
        from stedfm_hf.data.publishing.summary import count_table, pixel_table

        tables = [
            text_table(table.header, table.rows) for table in (count_table(self.record), pixel_table(self.record))
        ]
        return "\n\n".join([*tables, *([f"figures and {_RECORD} written to {self.output}"] if self.output else [])])

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return self.record


@takes_settings(StatsSettings)
def dataset_stats(settings: StatsSettings) -> DatasetStats:
    """Measure counts, intensities and sizes of a data set, and plot them if an output is given.

    The data set is read once, with some hundred crops in memory. Data sets on the Hub are streamed, not stored.

    Returns:
        The statistics, and the output folder.

    Raises:
        UserError: There is no such data set, it is not a data set of crops, or a shard is damaged.

    Example:
        >>> dataset_stats("my-crops", output="my-crops-stats").record["crops"]  # doctest: +SKIP
        2048
    """
    check_repository_name(settings.dataset)
    if settings.output is not None:
        check_output(settings.output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    splits = [find_split(settings.dataset, split) for split in find_split_names(settings.dataset)]
    stats = _measure(splits) if settings.output is None else _write(splits, settings)
    sources = stats.record["sources"]
    if shared := sources["shared_between_splits"]:
        print_note(
            f"warning: {shared} source images have crops in several splits ({', '.join(sources['examples'])}); build "
            "the data set again to split by source image"
        )
    return stats


def _write(splits: Sequence[SplitFiles], settings: StatsSettings) -> DatasetStats:
    """Measure a data set and write the results, or read those of an earlier run."""
    output = Path(settings.output or "")
    names = [_RECORD, *(f"{name}.{suffix}" for name in ("histogram", "contact_sheet") for suffix in ("png", "svg"))]
    shards = [(split.split, Path(shard.file).name, shard.row_groups) for split in splits for shard in split.shards]
    resolved = {"shards": sha256(repr(shards).encode()).hexdigest()[:16]}
    with open_output(
        output, COMMAND, settings, results=names, resolved=resolved, overwrite=settings.overwrite
    ) as opened:
        if opened.finished:
            return DatasetStats(read_json(output / _RECORD), output)
        return _measure(splits, output)


def _measure(splits: Sequence[SplitFiles], output: Path | None = None) -> DatasetStats:
    """Read all splits once, and collect their statistics; write them with their figures if an output is given."""
    # Imported here, because these modules import torch, datasets and matplotlib.
    from stedfm_hf.data.publishing.figures import write_figures
    from stedfm_hf.data.publishing.preview import Preview
    from stedfm_hf.data.publishing.statistics import Statistics

    columns = [*(name for name in CROP_COLUMNS if name != "metadata"), *splits[0].plane_columns]
    statistics, preview = Statistics(splits[0].labels), Preview(splits[0].labels, seed=0)
    with Progress(sum(split.rows for split in splits), description="stats", unit="crops") as progress:
        for files in splits:
            reader = ShardReader(files, columns)
            for number, shard in enumerate(files.shards):
                for table in reader.read_in_steps(number, list(_split_into_steps(shard.row_groups))):
                    statistics.add(files.split, table)
                    preview.add(files.split, table)
                    progress.update(table.num_rows)
    record = statistics.to_json()
    if output is not None:
        write_figures(output, record, preview.samples())
        write_json(output / _RECORD, record)
    return DatasetStats(record, output)


def _split_into_steps(row_groups: Sequence[int]) -> Iterator[list[int]]:
    """Yield the numbers of consecutive row groups that are decoded at once, with some hundred rows."""
    numbers: list[int] = []
    rows = 0
    for number, count in enumerate(row_groups):
        if numbers and rows + count > _ROWS_AT_ONCE:
            yield numbers
            numbers, rows = [], 0
        numbers.append(number)
        rows += count
    if numbers:
        yield numbers
