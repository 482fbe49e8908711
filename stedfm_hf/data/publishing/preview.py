"""A few crops of every split as PNG pictures, for the viewer of the Hub."""

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

_PLACE = ("source", "series", "channel", "y", "x")
_PLAIN = ("source", "series", "channel", "pixel_size_nm", "foreground_fraction")
# Background stays black; neighbouring numbers differ in hue. 37 steps of 255 visit every colour once.
_MASK_COLOURS = [0, 0, 0] + [
    int(value)
    for number in range(255)
    for value in np.asarray(Image.new("HSV", (1, 1), (37 * number % 255, 170, 255)).convert("RGB")).ravel()
]


@dataclass(frozen=True, eq=False)
class Sample:
    """A crop for display.

    Args:
        image: (H, W) uint8: 0 and 255 are the ends of the crop's intensity range.
        label: name of its class, or None.
        split: the split it is in.
        pixel_size_nm: (y, x), or None where it is not known.
    """

    image: np.ndarray
    label: str | None
    split: str
    pixel_size_nm: tuple[float, float] | None


class Preview:
    """Keeps a few crops of every split, as many of every class as there are.

    Which ones is decided by a hash of their place and the seed, so the order in which rows come does not matter. No
    more than `most` crops of a split are held in memory.

    Args:
        labels: names of the classes.
        seed: of the choice.
        most: crops of a split at most.

    Example:
        >>> from stedfm_hf.data.repository.layout import Crop, Scaling, crop_features, crops_to_table
        >>> pixels, scaling = np.zeros((4, 4), np.uint8), Scaling(0, 1, applied=True)
        >>> crops = [Crop(pixels, scaling, source=str(number)) for number in range(9)]
        >>> preview = Preview([], seed=0, most=4)
        >>> preview.add("train", crops_to_table(crops).cast(crop_features().arrow_schema))
        >>> len(preview.samples())
        4
    """

    def __init__(self, labels: Sequence[str], *, seed: int, most: int = 64) -> None:
        self.labels, self.seed, self.most = tuple(labels), seed, most
        self._chosen: defaultdict[str, _Balanced] = defaultdict(lambda: _Balanced(most))

    def add(self, split: str, table: pa.Table) -> None:
        """Offers rows of a split, with the columns of :func:`stedfm_hf.data.repository.layout.crop_features`."""
        chosen = self._chosen[split]
        codes = pc.fill_null(table["label"], UNLABELLED).to_pylist()
        for number, (code, rank) in enumerate(zip(codes, _ranks(table, self.seed), strict=True)):
            chosen.offer(code, rank, number)
        chosen.take(table)

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The crops that were chosen, in the order of their hashes: classes are mixed."""
        return self._chosen[split].rows()

    def samples(self) -> list[Sample]:
        """The chosen crops of all splits, for display."""
        return [
            Sample(
                _display(row),
                None if row["label"] is None or row["label"] == UNLABELLED else self.labels[row["label"]],
                split,
                tuple(row["pixel_size_nm"]) if row["pixel_size_nm"] else None,
            )
            for split in self._chosen
            for row in self.rows(split)
        ]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have crops."""
        return tuple(split for split, chosen in self._chosen.items() if len(chosen))

    @property
    def features(self) -> Features:
        """Columns of the preview; no masks where no crop has one."""
        masked = any(row["mask"] is not None for split in self._chosen for row in self.rows(split))
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
        """Writes `preview/{split}.parquet` for every split.

        Args:
            folder: the repository.
        """
        features = self.features
        for split in self.splits:
            rows = []
            for row in self.rows(split):
                picture = {name: row[name] for name in ("label", *_PLAIN)}
                picture["image"] = {"bytes": _png(Image.fromarray(_display(row))), "path": None}
                if "mask" in features:
                    picture["mask"] = None if row["mask"] is None else {"bytes": _mask_png(row), "path": None}
                rows.append(picture)
            with atomic_path(folder / preview_name(split)) as temporary:
                table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
                pq.write_table(table, temporary, compression="zstd", row_group_size=16)


class _Balanced:
    """Keeps the `most` items of the smallest rank, of all classes equally many as far as there are.

    The largest class gives up its last item when there are too many. What was given up is never missed: later items
    can only make the share of a class smaller, so the choice does not depend on the order of the offers.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._classes: defaultdict[int, list[tuple[bytes, Any]]] = defaultdict(list)
        self._worst: dict[int, bytes] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def offer(self, code: int, rank: bytes, item: Any) -> None:
        """Offers an item of a class."""
        members = self._classes[code]
        largest = max(map(len, self._classes.values()))
        if self._count == self.most and members and len(members) == largest and rank >= self._worst[code]:
            return  # the usual case, kept short
        members.append((rank, item))
        self._worst[code] = max(rank, self._worst.get(code, rank))
        self._count += 1
        if self._count > self.most:
            largest = max(map(len, self._classes.values()))
            give = max((self._worst[each], each) for each, held in self._classes.items() if len(held) == largest)[1]
            held = self._classes[give]
            held.remove(max(held, key=lambda entry: entry[0]))
            self._worst[give] = max((entry[0] for entry in held), default=b"")
            self._count -= 1

    def take(self, table: pa.Table) -> None:
        """Replaces items that are numbers of rows by the rows: a copy of them, not the table, stays in memory."""
        for members in self._classes.values():
            for place, (rank, item) in enumerate(members):
                if isinstance(item, int):
                    members[place] = (rank, table.slice(item, 1).to_pylist()[0])

    def rows(self) -> list[Any]:
        """What was kept, by rank."""
        entries = [entry for members in self._classes.values() for entry in members]
        return [item for _, item in sorted(entries, key=lambda entry: entry[0])]


def _ranks(table: pa.Table, seed: int) -> list[bytes]:
    key = f"{seed}".encode()
    places = pc.binary_join_element_wise(
        *(pc.fill_null(pc.cast(table[name], pa.string()), "") for name in _PLACE), "\0"
    )
    return [hashlib.blake2b(place.encode(), digest_size=16, key=key).digest() for place in places.to_pylist()]


def _display(row: dict[str, Any]) -> np.ndarray:
    """A row as a picture (H, W) uint8."""
    names = ("pixels", "height", "width", "dtype", "intensity_low", "intensity_high")
    crop = decode({name: row[name] for name in names})
    unit = to_unit_range(crop["pixels"], crop["intensity_range"]).nan_to_num_(0.0)
    display: np.ndarray = unit.mul(255).round_().byte().numpy()[0]
    return display


def _mask_png(row: dict[str, Any]) -> bytes:
    """The mask with a colour for every number; up to 255 the numbers themselves are the pixels of the PNG.

    Of planes that overlap the strongest is shown, of equally strong ones the last: its number from 1.
    """
    names = ("pixels", "height", "width", "dtype", "mask", "mask_planes", "mask_dtype")
    mask = decode({name: row[name] for name in names if name in row})["mask"].numpy()
    if mask.ndim == 3:
        mask = np.where(mask.any(axis=0), len(mask) - mask[::-1].argmax(axis=0), 0)
    mask = mask.astype(np.int64)
    picture = Image.fromarray(np.where(mask > 255, 1 + (mask - 1) % 255, mask).astype(np.uint8))
    picture.putpalette(_MASK_COLOURS)
    return _png(picture)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
