"""Statistics of a data set: counts, intensities and sizes of its crops."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image

from stedfm_hf.data.publishing.bounded_counts import FractionCounts, SourceCounts
from stedfm_hf.data.repository.decoding import UNLABELLED, decode, to_unit_range
from stedfm_hf.data.repository.layout import SPLITS

LEVELS = 256
"""Number of bins of the intensity histogram; bin n is the scaled intensity n / 255."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Quantiles of the fraction of foreground."""
_PIXELS_AT_ONCE = 8_000_000
_KIND = ("height", "width", "dtype")
_FORMAT = 1


class Statistics:
    """Counts and intensities of a data set, collected in one pass.

    Intensities are scaled to [0, 1] by the range of each row and clipped, like the input of a model.

    Args:
        labels: Names of the classes.
        sources: Source images that were counted before; None counts none.

    Attributes:
        planes: Whether the rows have the columns of masks with planes and of regions.
        sources: Source images of each split.

    Example:
        >>> from stedfm_hf.data.repository.layout import Crop, Scaling, crop_features, crops_to_table
        >>> crop = Crop(np.full((2, 2), 51, np.uint8), Scaling(0, 9, applied=True), source="a")
        >>> statistics = Statistics([])
        >>> statistics.add("train", crops_to_table([crop, crop]).cast(crop_features().arrow_schema))
        >>> record = statistics.to_json()
        >>> record["crops"], record["splits"]["train"]["sources"], record["intensity"]["mean"]
        (2, 1, 0.2)
    """

    def __init__(self, labels: Sequence[str], sources: SourceCounts | None = None) -> None:
        self.labels = tuple(labels)
        self._groups: defaultdict[tuple[str, str | None], _Intensities] = defaultdict(_Intensities)
        self.sources = SourceCounts() if sources is None else sources
        self._kinds: Counter[tuple[int, int, str]] = Counter()
        self._pixel_sizes: Counter[tuple[float, float]] = Counter()
        self._foreground = FractionCounts()
        self._memory: Counter[str] = Counter()
        self._masks = self._scaled = self._regions = 0
        self._planes: Counter[tuple[str, ...]] = Counter()
        self.planes = False

    def add(self, split: str, table: pa.Table) -> None:
        """Add rows of a split.

        Args:
            split: Name of the split.
            table: Rows of any sizes and dtypes, with the columns of
                `crop_features`.

        Raises:
            UserError: A row is damaged.
        """
        self._memory[split] += table.nbytes
        self._masks += table.num_rows - table["mask"].null_count
        if "mask_planes" in table.schema.names:
            self.planes = True
            self._planes.update(map(tuple, table["mask_planes"].drop_null().to_pylist()))
            self._regions += table.num_rows - table["region"].null_count
        self.sources.add(split, table["source"].unique().drop_null().to_pylist())
        self._add_pixel_sizes(table["pixel_size_nm"])
        self._foreground.add(table["foreground_fraction"].drop_null().to_numpy())
        for count in table["scaling"].value_counts().to_pylist():
            self._scaled += count["counts"] * bool(json.loads(count["values"] or "{}").get("applied"))
        for kind, rows in _by_kind(table):
            self._kinds[kind] += rows.num_rows
            step = max(1, _PIXELS_AT_ONCE // max(1, kind[0] * kind[1]))
            for start in range(0, rows.num_rows, step):
                self._add_pixels(split, rows.slice(start, step))

    def _add_pixel_sizes(self, column: pa.ChunkedArray) -> None:
        """Count the pixel sizes (y, x), rounded to four digits; unknown ones are not counted."""
        pairs = pc.list_flatten(column.drop_null()).to_numpy().reshape(-1, 2)
        sizes, counts = np.unique(pairs, axis=0, return_counts=True)
        for (y, x), count in zip(sizes, counts, strict=True):
            self._pixel_sizes[float(f"{y:.4g}"), float(f"{x:.4g}")] += int(count)

    def _add_pixels(self, split: str, table: pa.Table) -> None:
        """Add the scaled intensities of rows of one size and dtype to the sums of their split and label."""
        batch = decode(table.select([*_KIND, "pixels", "label", "intensity_low", "intensity_high"]))
        pixels, ranges, labels = batch["pixels"], batch["intensity_range"], batch["label"]
        for code in labels.unique().tolist():
            group = self._groups[split, None if code == UNLABELLED else self.labels[code]]
            crops = _select(pixels, labels == code)
            group.crops += len(crops)
            crop_ranges = ranges[labels == code]
            if pixels.dtype not in _COUNTED_DTYPES:
                group.add_unit(to_unit_range(crops, crop_ranges).nan_to_num_(0.0))
                continue
            # These dtypes have few values: counting them first and scaling the values is several times faster.
            for limits in crop_ranges.unique(dim=0):
                values, counts = _count_values(_select(crops, (crop_ranges == limits).all(dim=1)))
                group.add_counts(counts, to_unit_range(values[:, None, None], limits).flatten())

    def record(self) -> dict[str, Any]:
        """Return everything but the sources as plain data, which `merge` adds to other statistics."""
        return {
            "groups": [[split, label, group.record()] for (split, label), group in self._groups.items()],
            "kinds": [[*kind, count] for kind, count in self._kinds.items()],
            "pixel_sizes": [[*pair, count] for pair, count in self._pixel_sizes.items()],
            "planes": [[list(names), count] for names, count in self._planes.items()],
            "foreground": self._foreground.record(),
            "memory": dict(self._memory),
            "counts": [self._masks, self._scaled, self._regions, int(self.planes)],
        }

    def merge(self, record: Mapping[str, Any]) -> None:
        """Add the statistics of other rows, as returned by `record`."""
        for split, label, group in record["groups"]:
            self._groups[split, label] += _Intensities.of_record(group)
        self._kinds.update({(h, w, dtype): count for h, w, dtype, count in record["kinds"]})
        self._pixel_sizes.update({(y, x): count for y, x, count in record["pixel_sizes"]})
        self._planes.update({tuple(names): count for names, count in record["planes"]})
        self._foreground.merge(record["foreground"])
        self._memory.update(record["memory"])
        masks, scaled, regions, planes = record["counts"]
        self._masks, self._scaled, self._regions = self._masks + masks, self._scaled + scaled, self._regions + regions
        self.planes = self.planes or bool(planes)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have rows, in their usual order."""
        present = {split for split, _ in self._groups}
        return tuple([s for s in SPLITS if s in present] + sorted(present - set(SPLITS)))

    @property
    def memory(self) -> dict[str, int]:
        """Size of the rows of each split in memory, in bytes, for the front matter of a card."""
        return {split: self._memory[split] for split in self.splits}

    def to_json(self) -> dict[str, Any]:
        """Return all statistics as plain data.

        Returns:
            Dictionary with these keys:

            - `crops`: number of crops.
            - `splits`: for each split `crops`, `mean` and `sd` of the scaled pixels, `sources` (number of source
              images), and `labels` (number of crops of each label).
            - `labels`: for each label `crops`, `mean` and `sd`; `unlabelled`: number of crops without a label.
            - `sources`: `total` number of source images, number of those `shared_between_splits`, and `examples`.
            - `intensity`: `mean`, `sd`, `histogram` (256 bins from 0 to 1), and histograms `by_label`.
            - `sizes`, `dtypes`, `pixel_sizes_nm`: values with their number of crops, most frequent first.
            - `with_mask`, `with_region`, `scaled`: number of crops with a mask, with a region, and with scaled pixels.
            - `mask_planes`: `names` of the planes of masks, and number of `crops` with them.
            - `foreground_fraction`: quantiles of the fraction of foreground of the crops, or None if unknown.
            - `pixel_bytes`: size of the uncompressed pixels, in bytes.
        """
        labels, splits = self._sum_by(1), self._sum_by(0)
        total = sum(splits.values(), _Intensities())
        bounds = self._foreground.quantiles(QUANTILES)
        return {
            "format": _FORMAT,
            "crops": total.crops,
            "splits": {
                split: {
                    **splits[split].summary(),
                    "sources": self.sources.count(split),
                    "labels": {name: self._crops(split, name) for name in self.labels},
                }
                for split in self.splits
            },
            "labels": {name: labels.get(name, _Intensities()).summary() for name in self.labels},
            "unlabelled": labels[None].crops if None in labels else 0,
            "sources": self.sources.to_json(),
            "intensity": {
                "mean": total.summary()["mean"],
                "sd": total.summary()["sd"],
                "histogram": total.levels.tolist(),
                "by_label": {name: labels[name].levels.tolist() for name in self.labels if name in labels},
            },
            "sizes": [{"height": h, "width": w, "crops": n} for (h, w), n in self._count_kinds(slice(0, 2))],
            "dtypes": {dtype: count for (dtype,), count in self._count_kinds(slice(2, 3))},
            "pixel_sizes_nm": [{"y": y, "x": x, "crops": n} for (y, x), n in self._pixel_sizes.most_common()],
            "with_mask": self._masks,
            "mask_planes": [{"names": list(names), "crops": n} for names, n in self._planes.most_common()],
            "with_region": self._regions,
            "scaled": self._scaled,
            "foreground_fraction": {f"{q:g}": round(value, 4) for q, value in zip(QUANTILES, bounds, strict=False)}
            or None,
            "pixel_bytes": sum(h * w * np.dtype(dtype).itemsize * n for (h, w, dtype), n in self._kinds.items()),
        }

    def _crops(self, split: str, label: str) -> int:
        group = self._groups.get((split, label))
        return 0 if group is None else group.crops

    def _sum_by(self, part: int) -> dict[str | None, _Intensities]:
        """Sum intensities by split (part 0 of the key) or label (part 1)."""
        sums: dict[str | None, _Intensities] = {}
        for key, group in self._groups.items():
            sums[key[part]] = sums.get(key[part], _Intensities()) + group
        return sums

    def _count_kinds(self, part: slice) -> list[tuple[tuple[Any, ...], int]]:
        """Count the crops by a part of (height, width, dtype), most frequent first."""
        counts: Counter[tuple[Any, ...]] = Counter()
        for kind, count in self._kinds.items():
            counts[tuple(kind)[part]] += count
        return counts.most_common()


class _Intensities:
    """Sums over the scaled pixels of crops."""

    def __init__(self) -> None:
        self.crops = 0
        self.levels = np.zeros(LEVELS, np.int64)
        self._sum = self._squares = 0.0

    def add_counts(self, counts: np.ndarray, unit: torch.Tensor) -> None:
        """Add pixels by their number at each scaled intensity.

        Args:
            counts: Number of pixels at each intensity.
            unit: Scaled intensities, in [0, 1].
        """
        values = unit.double().numpy()
        self._sum += float(counts @ values)
        self._squares += float(counts @ values**2)
        np.add.at(self.levels, np.rint(values * (LEVELS - 1)).astype(np.intp), counts)

    def add_unit(self, unit: torch.Tensor) -> None:
        """Add scaled pixels."""
        self._sum += float(unit.sum(dtype=torch.float64))
        self._squares += float(unit.square().sum(dtype=torch.float64))
        self.levels += _count_bytes(unit.mul(LEVELS - 1).round_().to(torch.uint8))

    def record(self) -> list[Any]:
        """Return plain data, from which `of_record` makes equal sums."""
        return [self.crops, self.levels.tolist(), self._sum, self._squares]

    @classmethod
    def of_record(cls, record: Sequence[Any]) -> _Intensities:
        """Return the sums of a record."""
        result = cls()
        result.crops, result._sum, result._squares = record[0], record[2], record[3]
        result.levels = np.array(record[1], np.int64)
        return result

    def summary(self) -> dict[str, Any]:
        """Return the number of crops, and mean and standard deviation of their pixels."""
        pixels = int(self.levels.sum())
        if not pixels:
            return {"crops": self.crops, "mean": None, "sd": None}
        mean = self._sum / pixels
        sd = max(0.0, self._squares / pixels - mean**2) ** 0.5
        return {"crops": self.crops, "mean": round(mean, 6), "sd": round(sd, 6)}

    def __add__(self, other: _Intensities) -> _Intensities:
        result = _Intensities()
        result.crops, result.levels = self.crops + other.crops, self.levels + other.levels
        result._sum, result._squares = self._sum + other._sum, self._squares + other._squares
        return result


_COUNTED_DTYPES = (torch.uint8, torch.uint16, torch.int16)


def _select(pixels: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
    """Return the selected rows, without a copy if all are selected, as without classes or with one range for all."""
    return pixels if bool(selected.all()) else torch.from_numpy(pixels.numpy()[selected.numpy()])


def _count_values(pixels: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Return consecutive whole numbers that include all values of the pixels, and the number of pixels with each."""
    if pixels.dtype == torch.uint8:
        return torch.arange(LEVELS), _count_bytes(pixels)
    values = pixels.numpy()
    low = int(values.min())
    # `bincount` needs values of 0 or more.
    counts = np.bincount(values.ravel() if low >= 0 else (values.astype(np.int32) - low).ravel())
    return torch.arange(len(counts)) + min(low, 0), counts


def _count_bytes(pixels: torch.Tensor) -> np.ndarray:
    """Count the pixels with each of the 256 values; Pillow is four times as fast as NumPy."""
    lines = np.ascontiguousarray(pixels.numpy()).reshape(-1, pixels.shape[-1])
    return np.asarray(Image.fromarray(lines).histogram(), np.int64)


def _by_kind(table: pa.Table) -> Iterator[tuple[tuple[int, int, str], pa.Table]]:
    """Yield each (height, width, dtype) with its rows."""
    kinds = table.select(_KIND).group_by(_KIND).aggregate([]).to_pylist()
    for kind in kinds:
        rows = table
        if len(kinds) > 1:
            for name in _KIND:
                rows = rows.filter(pc.equal(rows[name], kind[name]))
        yield (kind["height"], kind["width"], kind["dtype"]), rows
