"""The crops of a data set while it is being built: part by part, so that a killed run loses at most the last ones.

A part holds the crops of some sources and says what became of every input it covers. It is written under a temporary
name and renamed when it is whole; a run that begins again keeps the parts that are there. (Ours.)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.repository.layout import Crop, crops_to_table, staged_schema, with_planes
from stedfm_hf.data.repository.shards import ONE_OF_A_KIND
from stedfm_hf.runs import ItemStatus, atomic_path

FOLDER = ".staging"
_KEY = b"stedfm_part"


@dataclass(frozen=True)
class StagedImage:
    """One image (one channel of one series of an input) of a part; its crops stand one after the other.

    Args:
        item: the input it comes from, as the manifest names it.
        source: id of the source image: the unit of the splits.
        content: SHA-256 of the image, by which exact copies are found; "" where copies cannot be.
        rows: crops it gave.
        label: name of the class, or None.
        split: the split it must be in, or None where the assembly decides.
        split_id: id that decides the split; None: `source`.
    """

    item: str
    source: str
    content: str
    rows: int
    label: str | None = None
    split: str | None = None
    split_id: str | None = None


@dataclass(frozen=True)
class Part:
    """What a part says about itself.

    Args:
        images: in the order of the rows.
        statuses: what became of every input the part covers.
        notes: plain data of the producer, such as sizes and dates of the inputs.
        planes: whether a crop has planes or a region; the writer knows it.
    """

    images: tuple[StagedImage, ...]
    statuses: dict[str, ItemStatus]
    notes: dict[str, Any] = field(default_factory=dict)
    planes: bool = False


class PartWriter:
    """A part that is being written; its crops never are in memory all at once.

    Args:
        file: the open Parquet file.

    Attributes:
        rows: crops so far.
    """

    def __init__(self, file: pq.ParquetWriter) -> None:
        self.rows = 0
        self._file = file
        self._planes = False

    def add(self, crops: Sequence[Crop] | pa.Table) -> None:
        """Writes the next crops."""
        table = crops if isinstance(crops, pa.Table) else crops_to_table(crops)
        self._planes = self._planes or "mask_planes" in table.schema.names
        self._file.write_table(with_planes(table.replace_schema_metadata(None)), row_group_size=512)
        self.rows += table.num_rows

    def finish(self, part: Part) -> None:
        """Writes what the part says about itself; the last thing to do.

        Raises:
            ValueError: the crops are not as many as the images say.
        """
        if (rows := sum(image.rows for image in part.images)) != self.rows:
            raise ValueError(f"{self.rows} crops, but the images say {rows}")
        self._file.add_key_value_metadata({_KEY: json.dumps(asdict(replace(part, planes=self._planes)))})


class Staging:
    """The parts of a data set that is being built, in a hidden folder of the repository.

    Args:
        output: the repository.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output / FOLDER

    def path(self, number: int) -> Path:
        """Where part `number` belongs."""
        return self.folder / f"part-{number:06d}.parquet"

    def numbers(self) -> list[int]:
        """Numbers of the parts that are there and whole."""
        return sorted(int(path.stem.removeprefix("part-")) for path in self.folder.glob("part-*.parquet"))

    def write(self, number: int, crops: Sequence[Crop] | pa.Table, part: Part) -> None:
        """Writes a part, whole or not at all.

        Raises:
            ValueError: the crops are not as many as the images say.
        """
        with self.open(number) as writer:
            writer.add(crops)
            writer.finish(part)

    @contextmanager
    def open(self, number: int) -> Iterator[PartWriter]:
        """Gives a part to be written piece by piece; it is there when the block ends, or not at all after an error."""
        schema = staged_schema(planes=True)
        plain = [name for name in schema.names if name not in ONE_OF_A_KIND]
        with atomic_path(self.path(number)) as temporary:
            with pq.ParquetWriter(
                temporary, schema, compression="zstd", use_dictionary=plain, write_statistics=False
            ) as file:
                yield PartWriter(file)

    def read_part(self, number: int) -> Part:
        """What a part says about itself."""
        record = json.loads(pq.read_metadata(self.path(number)).metadata[_KEY])
        return Part(
            tuple(StagedImage(**image) for image in record["images"]),
            {item: ItemStatus(**status) for item, status in record["statuses"].items()},
            record["notes"],
            record.get("planes", False),
        )

    def read_rows(self, number: int) -> Iterator[pa.Table]:
        """The rows of a part, at most 512 at a time, with the columns of planes."""
        with pq.ParquetFile(self.path(number)) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, use_threads=False).replace_schema_metadata(None)
                # A part of an earlier version of the package has none.
                yield with_planes(rows).cast(staged_schema(planes=True))

    def remove(self) -> None:
        """Removes all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)
