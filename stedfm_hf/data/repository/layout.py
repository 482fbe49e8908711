"""The layout of a data set repository: what a row holds, and what the files are called.

One row is one crop of one channel. Pixels are raw bytes, compressed by Parquet itself (zstd): several times faster to
read than pictures, and smaller than PNG. Every producer (`build`, `import_archive`, `import_set`, `simulate`) makes
:class:`Crop` objects, and nothing else knows the columns. A data set whose masks are plain, a number for every pixel,
has the columns it always had; only planes and regions need more. (Layout: ours.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from stedfm_hf.data.repository.planes import PLANE_COLUMNS, mask_bytes, planes_columns

if TYPE_CHECKING:
    from datasets import Features

CONFIG = "crops"
"""Name of the configuration that holds the crops; the default of the repository."""
PREVIEW = "preview"
"""Name of the configuration that holds a few crops as PNG pictures, for the viewer of the Hub."""
SPLITS = ("train", "validation", "test")
INDEX_FILE = "index.json"
"""Rows of every shard and row group, so that a reader need not open them all to know the order of an epoch."""
STORED_DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass(frozen=True)
class Scaling:
    """How the stored pixels relate to those of the source.

    Args:
        low: intensity of the source that means 0; None where the scaling is applied and nobody wrote it down.
        high: intensity of the source that means 1, or None.
        applied: whether the stored pixels are scaled already (0 to the largest value of their dtype), else they are
            the source's own, and `low` to `high` says how the whole source would be scaled.
        quantiles: the quantiles of the source that `low` and `high` are, or None where they were given.
        fitted_on: what the quantiles were taken of: the whole source, or, where that is not at hand, the crop alone.
    """

    low: float | None
    high: float | None
    applied: bool
    quantiles: tuple[float, float] | None = None
    fitted_on: Literal["source", "crop"] = "source"

    def __post_init__(self) -> None:
        if not self.applied and (self.low is None or self.high is None):
            raise ValueError("pixels that are not scaled need the intensities that mean 0 and 1")

    def to_json(self) -> str:
        """The text in the column `scaling`."""
        record: dict[str, Any] = {"applied": self.applied, "low": self.low, "high": self.high}
        if self.quantiles is not None:
            record["quantiles"] = list(self.quantiles)
        if self.fitted_on != "source":
            record["fitted_on"] = self.fitted_on
        return json.dumps(record)


@dataclass(frozen=True, eq=False)
class Crop:
    """One crop: a row of the data set.

    Args:
        pixels: (H, W), of a dtype in `STORED_DTYPES`.
        scaling: how they relate to the pixels of the source.
        source: id of the source image; crops of one source are never on two sides of a split.
        label: name of its class, or None.
        mask: (H, W) of whole numbers from 0 to 65535; (P, H, W) of a plane for each class, whole numbers or fractions
            from 0 to 1; or None.
        pixel_size_nm: (y, x), or None where it is not known.
        series: name of the series in the source.
        channel: name of the channel in the series.
        y: row of the crop's top left corner in the (resampled) source.
        x: its column.
        foreground_fraction: fraction of the crop that is foreground, 0 to 1, or None.
        metadata: what is known of the microscope, plain data.
        mask_planes: names of the planes of the mask, which are those of the classes; () of a plain one.
        region: (H, W), above 0 where the annotation counts; None: everywhere.
    """

    pixels: np.ndarray
    scaling: Scaling
    source: str
    label: str | None = None
    mask: np.ndarray | None = None
    pixel_size_nm: tuple[float, float] | None = None
    series: str = "image"
    channel: str = "0"
    y: int = 0
    x: int = 0
    foreground_fraction: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    mask_planes: tuple[str, ...] = ()
    region: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype.name not in STORED_DTYPES:
            raise ValueError(
                f"a crop is (height, width) of {', '.join(STORED_DTYPES)}, not {self.pixels.dtype} {self.pixels.shape}"
            )
        planes = (len(self.mask_planes),) if self.mask_planes else ()
        if self.mask is not None and self.mask.shape != (*planes, *self.pixels.shape):
            named = f" with {len(self.mask_planes)} names" if self.mask.ndim == 3 or planes else ""
            raise ValueError(f"the mask is {self.mask.shape}{named}, the crop {self.pixels.shape}")
        if self.region is not None and self.region.shape != self.pixels.shape:
            raise ValueError(f"the region is {self.region.shape}, the crop {self.pixels.shape}")

    @property
    def has_planes(self) -> bool:
        """Whether the columns of a plain mask are not enough."""
        return bool(self.mask_planes) or self.region is not None


_COLUMNS = {
    "pixels": pa.binary(),
    "height": pa.int32(),
    "width": pa.int32(),
    "dtype": pa.string(),
    "label": pa.string(),
    "mask": pa.binary(),
    "pixel_size_nm": pa.list_(pa.float64()),
    "source": pa.string(),
    "series": pa.string(),
    "channel": pa.string(),
    "y": pa.int32(),
    "x": pa.int32(),
    "foreground_fraction": pa.float32(),
    "intensity_low": pa.float64(),
    "intensity_high": pa.float64(),
    "scaling": pa.string(),
    "metadata": pa.string(),
}
_PLANES = {"mask_planes": pa.list_(pa.string()), "mask_dtype": pa.string(), "region": pa.binary()}
CROP_COLUMNS = tuple(_COLUMNS)
"""Columns of every data set of crops; `planes.PLANE_COLUMNS` come after them where there are some."""


def staged_schema(*, planes: bool = False) -> pa.Schema:
    """Return the schema of crops whose classes have no numbers yet: `label` is a name."""
    return pa.schema({**_COLUMNS, **(_PLANES if planes else {})})


def crop_features(labels: Sequence[str] = (), *, planes: bool = False) -> Features:
    """Return the columns of a data set, as the `datasets` library describes them.

    Args:
        labels: Names of the classes; without any, `label` is a column of nulls.
        planes: Whether there are the columns of masks with planes and of regions.
    """
    from datasets import ClassLabel, Features, Value  # takes a second to import

    features = Features.from_arrow_schema(staged_schema(planes=planes))
    features["label"] = ClassLabel(names=list(labels)) if labels else Value("int64")
    return features


def crops_to_table(crops: Sequence[Crop]) -> pa.Table:
    """Crops as rows of `staged_schema`, with planes if a crop has any."""
    planes = any(crop.has_planes for crop in crops)
    rows = [_row(crop) for crop in crops]
    return pa.Table.from_pylist(rows, schema=staged_schema(planes=planes))


def with_planes(table: pa.Table) -> pa.Table:
    """Rows with the columns of planes, empty where they had none."""
    schema = staged_schema(planes=True)
    for name in PLANE_COLUMNS:
        if name not in table.schema.names:
            table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    return table


def _row(crop: Crop) -> dict[str, Any]:
    pixels = np.ascontiguousarray(crop.pixels, dtype=crop.pixels.dtype.newbyteorder("<"))
    stored_low, stored_high = crop.scaling.low, crop.scaling.high
    if crop.scaling.applied:
        stored_low, stored_high = 0.0, _largest(pixels.dtype)
    return {
        "pixels": pixels.tobytes(),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "dtype": pixels.dtype.name,
        "label": crop.label,
        "mask": None if crop.mask is None or crop.mask_planes else mask_bytes(crop.mask),
        "pixel_size_nm": None if crop.pixel_size_nm is None else list(crop.pixel_size_nm),
        "source": crop.source,
        "series": crop.series,
        "channel": crop.channel,
        "y": crop.y,
        "x": crop.x,
        "foreground_fraction": crop.foreground_fraction,
        "intensity_low": stored_low,
        "intensity_high": stored_high,
        "scaling": crop.scaling.to_json(),
        "metadata": json.dumps(crop.metadata, ensure_ascii=False),
        **planes_columns(crop.mask, crop.mask_planes, crop.region),
    }


def _largest(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def shard_name(split: str, number: int, count: int) -> str:
    """Path of a shard in the repository.

    >>> shard_name("train", 3, 12)
    'data/train-00003-of-00012.parquet'
    """
    return f"data/{split}-{number:05d}-of-{count:05d}.parquet"


def preview_name(split: str) -> str:
    """Path of the preview of a split in the repository.

    >>> preview_name("train")
    'preview/train.parquet'
    """
    return f"preview/{split}.parquet"
