"""Crops of a data set that is being made: parts on disk, so that a killed run loses at most the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from stedfm_hf.data.repository.layout import Crop, crops_to_table, staged_schema, with_planes
from stedfm_hf.data.repository.shards import ONE_OF_A_KIND
from stedfm_hf.runs import ItemStatus
from stedfm_hf.runs.parts import Part, PartStore, PartWriter

FOLDER = ".staging"
_ROWS_PER_GROUP = 512


@dataclass(frozen=True)
class StagedImage:
    """One image of a part: one channel of one series of an input. Its crops are successive rows.

    Attributes:
        item: Input that it comes from, as the manifest names it.
        source: Id of the source image: the unit of the splits.
        content: SHA-256 of the image, by which exact copies are found; "" where there cannot be any.
        rows: Number of crops.
        label: Name of the class, or None.
        split: Split that it must be in; None lets the id decide.
        split_id: Id that decides the split; None: `source`.
    """

    item: str
    source: str
    content: str
    rows: int
    label: str | None = None
    split: str | None = None
    split_id: str | None = None


@dataclass
class CropWriter:
    """A part that is being written; its crops are never in memory all at once.

    Attributes:
        part: The part; its items and notes are to be filled in.
        images: Images of the crops, in their order; to be filled in.
        planes: Whether a crop so far has a mask with planes, or a region.
    """

    part: PartWriter
    images: list[StagedImage] = field(default_factory=list)
    planes: bool = False

    @property
    def rows(self) -> int:
        """Number of crops so far."""
        return self.part.rows

    def add(self, crops: Sequence[Crop] | pa.Table) -> None:
        """Write the next crops."""
        table = crops if isinstance(crops, pa.Table) else crops_to_table(crops)
        self.planes = self.planes or "mask_planes" in table.schema.names
        self.part.add(with_planes(table), row_group_size=_ROWS_PER_GROUP)

    def finish(self) -> None:
        """Note the images of the part.

        Raises:
            ValueError: They do not have as many crops as were written.
        """
        if (rows := sum(image.rows for image in self.images)) != self.rows:
            raise ValueError(f"{self.rows} crops, but the images say {rows}")
        self.part.notes |= {"images": [asdict(image) for image in self.images], "planes": self.planes}


class Staging(PartStore):
    """The parts of a data set that is being made, in a hidden folder of it.

    Args:
        output: Folder of the data set.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(output / FOLDER)

    @contextmanager
    def open_crops(self, name: str) -> Iterator[CropWriter]:
        """Open a part for writing piece by piece; see `PartStore.open`."""
        schema = staged_schema(planes=True)
        plain = [column for column in schema.names if column not in ONE_OF_A_KIND]
        with self.open(name, schema, use_dictionary=plain, write_statistics=False) as part:
            writer = CropWriter(part)
            yield writer
            writer.finish()

    def write_crops(
        self, name: str, crops: Sequence[Crop], images: Sequence[StagedImage], items: dict[str, ItemStatus]
    ) -> None:
        """Write a part at once.

        Raises:
            ValueError: The images do not have as many crops.
        """
        with self.open_crops(name) as writer:
            writer.add(crops)
            writer.images, writer.part.items = list(images), items


def part_name(number: int) -> str:
    """Return the name of a part that sorts by its number.

    >>> part_name(3)
    'part-000003'
    """
    return f"part-{number:06d}"


def images_of(part: Part) -> list[StagedImage]:
    """Return the images of a part, in the order of its rows."""
    return [StagedImage(**image) for image in part.notes["images"]]
