"""Layout of a data set: columns of a row and names of files.

One row is one crop of one channel. Pixels are raw bytes, compressed by Parquet (zstd), which is several times faster
to read than PNG, and smaller. All commands that write data sets (`build`, `import_archive`, `import_set`, `simulate`)
make `Crop` objects; only this module defines the columns. The columns of `planes.PLANE_COLUMNS` are added if a
crop has a mask with planes or a region.
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
"""Name of the configuration that holds a few crops as PNG images, for the viewer of the Hub."""
SPLITS = ("train", "validation", "test")
"""Names of the splits, in their usual order."""
INDEX_FILE = "index.json"
"""File with the number of rows of each shard and row group, so that a reader need not open all shards."""
STORED_DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Dtypes of pixels that a data set can hold."""


@dataclass(frozen=True)
class Scaling:
    """Intensity scaling between the source image and the range from 0 to 1.

    Attributes:
        low: Intensity of the source that is scaled to 0; None if the scaling is applied and unknown.
        high: Intensity of the source that is scaled to 1; None if the scaling is applied and unknown.
        applied: Whether the stored pixels are scaled already, to the range from 0 to the largest value of their dtype.
            Otherwise they are the pixels of the source.
        quantiles: Quantiles of the source from which `low` and `high` were computed, or None.
        fitted_on: Image from which the quantiles were computed: the whole source, or the crop alone.

    Raises:
        ValueError: Pixels are not scaled, and `low` or `high` is missing.

    Example:
        >>> Scaling(3.0, 250.0, applied=False, quantiles=(0.001, 0.999)).to_json()
        '{"applied": false, "low": 3.0, "high": 250.0, "quantiles": [0.001, 0.999]}'
    """

    low: float | None
    high: float | None
    applied: bool
    quantiles: tuple[float, float] | None = None
    fitted_on: Literal["source", "crop"] = "source"

    def __post_init__(self) -> None:
        if not self.applied and (self.low is None or self.high is None):
            raise ValueError("pixels that are not scaled need the intensities low and high")

    def to_json(self) -> str:
        """Return the JSON text of the column `scaling`."""
        record: dict[str, Any] = {"applied": self.applied, "low": self.low, "high": self.high}
        if self.quantiles is not None:
            record["quantiles"] = list(self.quantiles)
        if self.fitted_on != "source":
            record["fitted_on"] = self.fitted_on
        return json.dumps(record)


@dataclass(frozen=True, eq=False)
class Crop:
    """One crop: a row of the data set.

    Attributes:
        pixels: Pixels (H, W), of a dtype in `STORED_DTYPES`.
        scaling: Intensity scaling of the pixels.
        source: Id of the source image. All crops of a source are in one split.
        label: Name of the class, or None.
        mask: Whole numbers from 0 to 65535 (H, W); or one plane for each class (P, H, W), whole numbers or fractions
            from 0 to 1; or None.
        pixel_size_nm: Pixel size (y, x) in nm, or None if unknown.
        series: Name of the series in the source.
        channel: Name of the channel in the series.
        y: Row of the top left corner of the crop in the (resampled) source.
        x: Column of the top left corner.
        foreground_fraction: Fraction of the crop that is foreground, 0 to 1, or None.
        metadata: Metadata of the image, plain data.
        mask_planes: Names of the planes of the mask, which are class names; () for a mask without planes.
        region: Region (H, W) with values above 0 where the crop is annotated; None if the whole crop is annotated.

    Raises:
        ValueError: The dtype is not supported, or shapes do not match.
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
        """Whether the crop has a mask with planes or a region."""
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
"""Columns of every data set of crops; `planes.PLANE_COLUMNS` follow if a crop has planes or a region."""


def staged_schema(*, planes: bool = False) -> pa.Schema:
    """Return the schema of staged crops, in which `label` is the name of the class.

    Args:
        planes: Whether the columns of masks with planes and of regions are included.
    """
    return pa.schema({**_COLUMNS, **(_PLANES if planes else {})})


def crop_features(labels: Sequence[str] = (), *, planes: bool = False) -> Features:
    """Return the columns of a data set as features of the `datasets` library.

    Args:
        labels: Names of the classes; without classes, the column `label` holds nulls.
        planes: Whether the columns of masks with planes and of regions are included.
    """
    from datasets import ClassLabel, Features, Value  # takes a second to import

    features = Features.from_arrow_schema(staged_schema(planes=planes))
    features["label"] = ClassLabel(names=list(labels)) if labels else Value("int64")
    return features


def crops_to_table(crops: Sequence[Crop]) -> pa.Table:
    """Convert crops to a table with the columns of `staged_schema`.

    Args:
        crops: Crops; the columns of planes are included if one of them has planes or a region.
    """
    planes = any(crop.has_planes for crop in crops)
    rows = [_row(crop) for crop in crops]
    return pa.Table.from_pylist(rows, schema=staged_schema(planes=planes))


def with_planes(table: pa.Table) -> pa.Table:
    """Add the columns of masks with planes and of regions, filled with nulls, to a table without them."""
    schema = staged_schema(planes=True)
    for name in PLANE_COLUMNS:
        if name not in table.schema.names:
            table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    return table


def _row(crop: Crop) -> dict[str, Any]:
    """Convert a crop to the values of a row; pixels and masks become little-endian bytes.

    `intensity_low` and `intensity_high` are stored values: scaled pixels have the range of their dtype.
    """
    pixels = np.ascontiguousarray(crop.pixels, dtype=crop.pixels.dtype.newbyteorder("<"))
    stored_low, stored_high = crop.scaling.low, crop.scaling.high
    if crop.scaling.applied:
        stored_low, stored_high = 0.0, _scaled_maximum(pixels.dtype)
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


def _scaled_maximum(dtype: np.dtype[Any]) -> float:
    """Return the stored value of the scaled intensity 1: the largest integer, or 1.0 for floats."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def shard_name(split: str, number: int, count: int) -> str:
    """Return the path of a shard in the data set.

    Args:
        split: Name of the split.
        number: Number of the shard, from 0.
        count: Number of shards of the split.

    Example:
        >>> shard_name("train", 3, 12)
        'data/train-00003-of-00012.parquet'
    """
    return f"data/{split}-{number:05d}-of-{count:05d}.parquet"


def preview_name(split: str) -> str:
    """Return the path of the preview of a split in the data set.

    Example:
        >>> preview_name("train")
        'preview/train.parquet'
    """
    return f"preview/{split}.parquet"
