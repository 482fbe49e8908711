"""Staging of crops: parts on disk, so that an interrupted run repeats only the incomplete ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from stedfm_hf.data.repository.layout import Crop, crops_to_table, staged_schema, with_planes
from stedfm_hf.data.repository.shards import WITHOUT_DICTIONARY
from stedfm_hf.runs import ItemStatus
from stedfm_hf.runs.parts import Part, PartStore, PartWriter

FOLDER = ".staging"
_ROWS_PER_GROUP = 512


@dataclass(frozen=True)
class StagedImage:
    """One image of a part: one channel of one series of an input. Its crops are consecutive rows.

    Attributes:
        item: Name of the input in the manifest.
        source: Id of the source image. All crops of a source are in one split.
        content: SHA-256 of the image, by which exact copies are found; "" to skip the search for copies.
        rows: Number of crops.
        label: Name of the class, or None.
        split: Name of the split; None computes it from the id.
        split_id: Id from which the split is computed; None uses `source`.
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
    """Writer of the crops of a part, which holds only a few crops in memory.

    Attributes:
        part: Writer of the part; the caller fills in its items and notes.
        images: Images of the crops in their order; the caller fills them in.
        planes: Whether a crop has a mask with planes or a region.
    """

    part: PartWriter
    images: list[StagedImage] = field(default_factory=list)
    planes: bool = False

    @property
    def rows(self) -> int:
        """Number of crops that were written."""
        return self.part.rows

    def add(self, crops: Sequence[Crop] | pa.Table) -> None:
        """Write the next crops."""
        table = crops if isinstance(crops, pa.Table) else crops_to_table(crops)
        self.planes = self.planes or "mask_planes" in table.schema.names
        self.part.add(with_planes(table), row_group_size=_ROWS_PER_GROUP)

    def finish(self) -> None:
        """Record the images of the part.

        Raises:
            ValueError: The images have another number of crops than were written.
        """
        if (rows := sum(image.rows for image in self.images)) != self.rows:
            raise ValueError(f"{self.rows} crops were written, but the images have {rows}")
        self.part.notes |= {"images": [asdict(image) for image in self.images], "planes": self.planes}


class Staging(PartStore):
    """Parts of an unfinished data set, in a hidden folder of the output.

    Args:
        output: Folder of the data set.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(output / FOLDER)

    @contextmanager
    def open_crops(self, name: str) -> Iterator[CropWriter]:
        """Open a part for writing in several steps; see `PartStore.open`.

        Args:
            name: Name of the part.

        Yields:
            Writer of the crops.
        """
        schema = staged_schema(planes=True)
        plain = [column for column in schema.names if column not in WITHOUT_DICTIONARY]
        with self.open(name, schema, use_dictionary=plain, write_statistics=False) as part:
            writer = CropWriter(part)
            yield writer
            writer.finish()

    def write_crops(
        self, name: str, crops: Sequence[Crop], images: Sequence[StagedImage], items: dict[str, ItemStatus]
    ) -> None:
        """Write a part in one step.

        Args:
            name: Name of the part.
            crops: Crops in the order of the images.
            images: Images of the crops.
            items: Status of the inputs of the part.

        Raises:
            ValueError: The images have another number of crops.
        """
        with self.open_crops(name) as writer:
            writer.add(crops)
            writer.images, writer.part.items = list(images), items


def part_name(number: int) -> str:
    """Return the name of a part; names sort like numbers.

    Example:
        >>> part_name(3)
        'part-000003'
    """
    return f"part-{number:06d}"


def images_of(part: Part) -> list[StagedImage]:
    """Return the images of a part, in the order of its rows."""
    return [StagedImage(**image) for image in part.notes["images"]]
