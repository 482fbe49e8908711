"""Preview of a data set: a few crops of each split as PNG images, for the viewer of the Hub."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from stedfm_hf.data.repository.decoding import UNLABELLED, decode, to_unit_range
from stedfm_hf.data.repository.layout import preview_name
from stedfm_hf.runs import atomic_path

_POSITION = ("source", "series", "channel", "y", "x")
_COPIED = ("source", "series", "channel", "pixel_size_nm", "foreground_fraction")
# Background is black; neighbouring numbers differ in hue. Steps of 37 modulo 255 give each hue once.
_MASK_COLOURS = [0, 0, 0] + [
    int(value)
    for number in range(255)
    for value in np.asarray(Image.new("HSV", (1, 1), (37 * number % 255, 170, 255)).convert("RGB")).ravel()
]


@dataclass(frozen=True, eq=False)
class Sample:
    """A crop for display.

    Attributes:
        image: Crop (H, W) uint8, scaled by its intensity range.
        label: Name of the class, or None.
        split: Name of the split.
        pixel_size_nm: Pixel size (y, x) in nm, or None if unknown.
    """

    image: np.ndarray
    label: str | None
    split: str
    pixel_size_nm: tuple[float, float] | None


class Preview:
    """Random selection of crops of each split, balanced over the classes.

    A hash of the position of a crop and the seed selects the crops, so that the order of the rows does not matter. At
    most `limit` crops of a split are in memory.

    Args:
        labels: Names of the classes.
        seed: Random seed of the selection.
        limit: Largest number of crops of a split.

    Example:
        >>> from stedfm_hf.data.repository.layout import Crop, Scaling, crop_features, crops_to_table
        >>> pixels, scaling = np.zeros((4, 4), np.uint8), Scaling(0, 1, applied=True)
        >>> crops = [Crop(pixels, scaling, source=str(number)) for number in range(9)]
        >>> preview = Preview([], seed=0, limit=4)
        >>> preview.add("train", crops_to_table(crops).cast(crop_features().arrow_schema))
        >>> len(preview.samples())
        4
    """

    def __init__(self, labels: Sequence[str], *, seed: int, limit: int = 64) -> None:
        self.labels, self.seed, self.limit = tuple(labels), seed, limit
        self._selected: defaultdict[str, _Balanced] = defaultdict(lambda: _Balanced(limit))

    def add(self, split: str, table: pa.Table) -> None:
        """Add rows of a split, from which the preview selects.

        Args:
            split: Name of the split.
            table: Rows with the columns of `crop_features`.
        """
        selected = self._selected[split]
        codes = pc.fill_null(table["label"], UNLABELLED).to_pylist()
        for number, (code, rank) in enumerate(zip(codes, _ranks(table, self.seed), strict=True)):
            selected.offer(code, rank, number)
        selected.store(table)

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Return the selected rows of a split, in the order of their hashes, which mixes the classes."""
        return self._selected[split].rows()

    def samples(self) -> list[Sample]:
        """Return the selected crops of all splits for display."""
        return [
            Sample(
                _display(row),
                None if row["label"] is None or row["label"] == UNLABELLED else self.labels[row["label"]],
                split,
                tuple(row["pixel_size_nm"]) if row["pixel_size_nm"] else None,
            )
            for split in self._selected
            for row in self.rows(split)
        ]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have crops."""
        return tuple(split for split, selected in self._selected.items() if len(selected))

    @property
    def features(self) -> Features:
        """Columns of the preview, with masks if a crop has one."""
        masked = any(row["mask"] is not None for split in self._selected for row in self.rows(split))
        return Features(
            {
                "image": ImageFeature(),
                "label": ClassLabel(names=list(self.labels)) if self.labels else Value("int64"),
                **({"mask": ImageFeature()} if masked else {}),
                "source": Value("string"),
                "series": Value("string"),
                "channel": Value("string"),
                "pixel_size_nm": List(Value("float64")),
                "foreground_fraction": Value("float32"),
            }
        )

    def write(self, folder: Path) -> None:
        """Write `preview/{split}.parquet` for each split.

        Args:
            folder: Folder of the data set.
        """
        features = self.features
        for split in self.splits:
            rows = []
            for row in self.rows(split):
                preview_row = {name: row[name] for name in ("label", *_COPIED)}
                preview_row["image"] = {"bytes": _png(Image.fromarray(_display(row))), "path": None}
                if "mask" in features:
                    preview_row["mask"] = None if row["mask"] is None else {"bytes": _mask_png(row), "path": None}
                rows.append(preview_row)
            with atomic_path(folder / preview_name(split)) as temporary:
                table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
                pq.write_table(table, temporary, compression="zstd", row_group_size=16)


class _Balanced:
    """The `limit` items of the smallest rank, with the same number of all classes if they have enough items.

    An item is first the number of a row, which `store` replaces by the row. If there are too many items, the largest
    class drops the item of the largest rank. Later items can only reduce the number of items of a class, so the
    selection does not depend on the order of the offers.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._classes: defaultdict[int, list[tuple[bytes, Any]]] = defaultdict(list)
        self._worst: dict[int, bytes] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def offer(self, code: int, rank: bytes, item: Any) -> None:
        """Offer an item of a class.

        Args:
            code: Number of the class.
            rank: Rank of the item; items of small rank are kept.
            item: The item.
        """
        members = self._classes[code]
        largest = max(map(len, self._classes.values()))
        if self._count == self.limit and members and len(members) == largest and rank >= self._worst[code]:
            return  # a shortcut for the most frequent case
        members.append((rank, item))
        self._worst[code] = max(rank, self._worst.get(code, rank))
        self._count += 1
        if self._count > self.limit:
            largest = max(map(len, self._classes.values()))
            # Of several largest classes, the one with the item of the largest rank loses it.
            _, reduced = max((self._worst[each], each) for each, held in self._classes.items() if len(held) == largest)
            held = self._classes[reduced]
            held.remove(max(held, key=lambda entry: entry[0]))
            self._worst[reduced] = max((entry[0] for entry in held), default=b"")
            self._count -= 1

    def store(self, table: pa.Table) -> None:
        """Replace items that are row numbers by copies of the rows, so that the table need not stay in memory."""
        for members in self._classes.values():
            for index, (rank, item) in enumerate(members):
                if isinstance(item, int):
                    members[index] = (rank, table.slice(item, 1).to_pylist()[0])

    def rows(self) -> list[Any]:
        """Return the kept items, sorted by rank."""
        entries = [entry for members in self._classes.values() for entry in members]
        return [item for _, item in sorted(entries, key=lambda entry: entry[0])]


def _ranks(table: pa.Table, seed: int) -> list[bytes]:
    """Return a hash of the position of each crop and the seed, by which crops are selected at random."""
    key = f"{seed}".encode()
    positions = pc.binary_join_element_wise(
        *(pc.fill_null(pc.cast(table[name], pa.string()), "") for name in _POSITION), "\0"
    )
    return [hashlib.blake2b(each.encode(), digest_size=16, key=key).digest() for each in positions.to_pylist()]


def _display(row: dict[str, Any]) -> np.ndarray:
    """Convert a row to an image for display, (H, W) uint8."""
    names = ("pixels", "height", "width", "dtype", "intensity_low", "intensity_high")
    crop = decode({name: row[name] for name in names})
    unit = to_unit_range(crop["pixels"], crop["intensity_range"]).nan_to_num_(0.0)
    display: np.ndarray = unit.mul(255).round_().byte().numpy()[0]
    return display


def _mask_png(row: dict[str, Any]) -> bytes:
    """Convert a mask to a PNG image with a colour for each number; numbers up to 255 are the pixel values.

    If planes overlap, a pixel has the number (from 1) of the plane with the largest value, or of the last of these.
    """
    names = ("pixels", "height", "width", "dtype", "mask", "mask_planes", "mask_dtype")
    mask = decode({name: row[name] for name in names if name in row})["mask"].numpy()
    if mask.ndim == 3:
        mask = np.where(mask.any(axis=0), len(mask) - mask[::-1].argmax(axis=0), 0)
    mask = mask.astype(np.int64)
    image = Image.fromarray(np.where(mask > 255, 1 + (mask - 1) % 255, mask).astype(np.uint8))
    image.putpalette(_MASK_COLOURS)
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
