"""Decoding of rows of a data set to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.data.repository.planes import read_planes, read_region
from stedfm_hf.runs.errors import UserError

UNLABELLED = -1
"""Number of a row without a label."""


def decode(rows: Mapping[str, Any] | pa.Table | pa.RecordBatch) -> dict[str, Any]:
    """Convert a row or a batch of a data set to tensors.

    Args:
        rows: One row of a `datasets` data set (a dictionary of values); or a batch, as a dictionary of lists
            (`dataset[0:8]`, `map(batched=True)`, `with_transform`) or as an Arrow table.

    Returns:
        Dictionary of tensors, without the dimension B for one row:

        - `pixels` (B, 1, H, W) in the stored dtype, such as uint8 or uint16.
        - `intensity_range` (B, 2) float32: stored values that are scaled to 0 and 1, see `to_unit_range`.
        - `label` (B,) int64, -1 for rows without a label.
        - `mask` (B, H, W) uint8 or uint16, or (B, P, H, W) for masks with planes, float32 if they hold fractions;
          absent if no row has a mask.
        - `region` (B, H, W) bool: True where a crop is annotated; absent if no row has a region.
        - All other columns unchanged.

    Raises:
        UserError: A row is damaged, or the crops of a batch have different sizes or dtypes, or masks with different
            planes.

    Example:
        >>> from stedfm_hf.data.repository.layout import Crop, Scaling, crops_to_table
        >>> crop = Crop(np.full((2, 3), 255, np.uint8), Scaling(0, 90, applied=True), source="a")
        >>> batch = decode(crops_to_table([crop, crop]))
        >>> batch["pixels"].shape, to_unit_range(batch["pixels"], batch["intensity_range"]).max().item()
        (torch.Size([2, 1, 2, 3]), 1.0)
    """
    if isinstance(rows, pa.Table | pa.RecordBatch):
        return _decode_batch({name: rows[name] for name in rows.schema.names})
    if isinstance(rows["height"], int | np.integer):
        batch = _decode_batch({name: [value] for name, value in rows.items()})
        return {name: value[0] for name, value in batch.items()}
    return _decode_batch(dict(rows))


def to_unit_range(pixels: torch.Tensor, intensity_range: torch.Tensor) -> torch.Tensor:
    """Scale stored pixels to [0, 1].

    Args:
        pixels: Pixels (B, C, H, W) or (C, H, W), as returned by `decode`, on any device.
        intensity_range: Stored values that are scaled to 0 and 1, (B, 2) or (2,).

    Returns:
        float32 of the same shape, clipped to [0, 1]; zeros if the range is empty.

    Example:
        >>> to_unit_range(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8), torch.tensor([0.0, 255.0])).tolist()
        [[[0.0, 0.20000000298023224, 1.0]]]
    """
    low, high = (part[..., None, None, None].float() for part in intensity_range.unbind(-1))
    width = torch.where(high > low, high - low, torch.inf)
    # In place, because each new array in memory costs as much time as reading on a CPU.
    return pixels.to(torch.float32, copy=True).sub_(low).div_(width).clamp_(0.0, 1.0)


def _decode_batch(columns: dict[str, Any]) -> dict[str, Any]:
    """Decode the columns of a batch, lists or Arrow arrays; see `decode`.

    Columns that are missing, such as `label`, are missing in the result, too. Labels that are text stay text.
    """
    pixels = stack_pixels(columns["pixels"], columns["height"], columns["width"], columns["dtype"])
    decoded = {name: _plain(values) for name, values in columns.items() if name not in _DECODED}
    decoded["pixels"] = torch.from_numpy(pixels)[:, None]
    if "intensity_low" in columns:
        limits = [np.asarray(_plain(columns[f"intensity_{each}"]), np.float32) for each in ("low", "high")]
        decoded["intensity_range"] = torch.from_numpy(np.stack(limits, axis=-1))
    if "label" in columns:
        labels = [UNLABELLED if label is None else label for label in _plain(columns["label"])]
        if not any(isinstance(label, str) for label in labels):
            decoded["label"] = torch.tensor(labels, dtype=torch.int64)
    if "mask" in columns:
        masks = stack_masks(columns["mask"], pixels.shape[1:], columns.get("mask_planes"), columns.get("mask_dtype"))
        if masks is not None:
            decoded["mask"] = torch.from_numpy(masks)
    if "region" in columns:
        regions = stack_regions(columns["region"], pixels.shape[1:])
        if regions is not None:
            decoded["region"] = torch.from_numpy(regions)
    return decoded


_DECODED = frozenset(
    {"pixels", "height", "width", "dtype", "mask", "mask_dtype", "region", "intensity_low", "intensity_high"}
)


def _plain(values: Any) -> Any:
    """Convert an Arrow column to a list; return other columns unchanged."""
    return values.to_pylist() if isinstance(values, pa.Array | pa.ChunkedArray) else values


def view_pixels(pixels: Any, heights: Any, widths: Any, dtypes: Any) -> np.ndarray:
    """Return the pixels of rows of one size and dtype, without a copy for Arrow data.

    Args:
        pixels: Column `pixels`.
        heights: Column `height`.
        widths: Column `width`.
        dtypes: Column `dtype`.

    Returns:
        (B, H, W), read-only.

    Raises:
        UserError: The rows differ in size or dtype, or the number of bytes does not match.
    """
    shapes = set(zip(_plain(heights), _plain(widths), _plain(dtypes), strict=True))
    if len(shapes) > 1:
        listed = ", ".join(f"{height} x {width} {dtype}" for height, width, dtype in sorted(shapes))
        raise UserError(f"crops of different sizes or dtypes ({listed}) cannot form a batch; decode them one by one")
    if not shapes:
        return np.empty((0, 0, 0), np.uint8)
    ((height, width, name),) = shapes
    dtype = np.dtype(name).newbyteorder("<")
    count = len(pixels)
    whole = _joined(pixels)
    if len(whole) != count * height * width * dtype.itemsize:
        raise UserError(f"damaged rows: {len(whole)} bytes for {count} crops of {height} x {width} {name}")
    return np.frombuffer(whole, dtype).reshape(count, height, width)


def stack_pixels(pixels: Any, heights: Any, widths: Any, dtypes: Any) -> np.ndarray:
    """Return a writable copy of the pixels of rows; see `view_pixels`."""
    view = view_pixels(pixels, heights, widths, dtypes)
    return view.astype(view.dtype.newbyteorder("="), copy=True)


def _joined(values: Any) -> Any:
    """Concatenate the bytes of all rows; a view without a copy for an Arrow column with one chunk."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if not isinstance(values, pa.Array):
        return b"".join(values)
    # Arrow stores the bytes of all rows one after the other, and the position in them at which each row starts.
    offset_dtype = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    _, offset_buffer, content = values.buffers()
    offsets = np.frombuffer(offset_buffer, offset_dtype)[values.offset : values.offset + len(values) + 1]
    return memoryview(content)[offsets[0] : offsets[-1]] if len(values) else b""


def stack_masks(masks: Any, shape: tuple[int, ...], planes: Any = None, dtypes: Any = None) -> np.ndarray | None:
    """Decode the masks of rows.

    Args:
        masks: Column `mask`.
        shape: Height and width of the crops.
        planes: Column `mask_planes`, or None.
        dtypes: Column `mask_dtype`, or None.

    Returns:
        (B, H, W), or (B, P, H, W) for masks with planes, with zeros for rows without a mask; None if no row has one.

    Raises:
        UserError: A mask does not have the size of its crop, or the masks have different planes.
    """
    rows, names = _plain(masks), _plain(planes)
    if not any(row is not None for row in rows):
        return None
    if names is not None and any(each is not None for each in names):
        return _stack_planes(rows, shape, names, _plain(dtypes))
    # The number of bytes of a mask tells whether it has one or two bytes per pixel.
    size = int(np.prod(shape))
    has_uint16 = any(row is not None and len(row) == 2 * size for row in rows)
    stacked = np.zeros((len(rows), *shape), np.uint16 if has_uint16 else np.uint8)
    for number, row in enumerate(rows):
        if row is None:
            continue
        if len(row) not in (size, 2 * size):
            raise UserError(f"damaged row: a mask of {len(row)} bytes for a crop of {shape[0]} x {shape[1]}")
        stacked[number] = np.frombuffer(row, "<u2" if len(row) == 2 * size else "u1").reshape(shape)
    return stacked


def _stack_planes(rows: Any, shape: tuple[int, ...], names: Any, dtypes: Any) -> np.ndarray:
    """Decode masks with planes to (B, P, H, W), with zeros for rows without a mask.

    Args:
        rows: Bytes of the mask of each row, or None; at least one row has a mask.
        shape: Height and width of the crops.
        names: Names of the planes of each row, or None.
        dtypes: Dtype of the planes of each row, or None.

    Raises:
        UserError: The masks have different planes, or a mask does not have the size of its crop.
    """
    plane_sets = {tuple(each or ()) for row, each in zip(rows, names, strict=True) if row is not None}
    if len(plane_sets) > 1:
        listed = "; ".join(", ".join(each) or "no planes" for each in sorted(plane_sets))
        raise UserError(f"masks with different planes ({listed}) cannot form a batch; decode them one by one")
    try:
        masks = [
            None if row is None else read_planes(row, each, dtype, shape)
            for row, each, dtype in zip(rows, names, dtypes, strict=True)
        ]
    except ValueError as error:
        raise UserError(f"damaged row: {error}") from error
    dtype = np.result_type(*(each.dtype for each in masks if each is not None))
    stacked = np.zeros((len(rows), len(plane_sets.pop()), *shape), dtype)
    for number, planes in enumerate(masks):
        if planes is not None:
            stacked[number] = planes
    return stacked


def stack_regions(regions: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Decode the regions of rows.

    Args:
        regions: Column `region`.
        shape: Height and width of the crops.

    Returns:
        (B, H, W) bool, all True for rows without a region; None if no row has one.

    Raises:
        UserError: A region does not have the size of its crop.
    """
    rows = _plain(regions)
    if not any(row is not None for row in rows):
        return None
    try:
        return np.stack([np.ones(shape, bool) if row is None else read_region(row, shape) for row in rows])
    except ValueError as error:
        raise UserError(f"damaged row: {error}") from error
