"""Reading of a member of the official archives as a crop, without running code from it.

A member is a TIFF or an `.npz` file. The `.npz` holds `image`, either 8 bit and scaled by the 0.001 and 0.999
quantiles of the whole source, or 16 bit with the minimum of the source subtracted, and `metadata`, a pickled
dictionary. The name of the member ends in the position of the crop on the grid, row and column in pixels.

Source:
    Reference protocol: the published script that writes the archives.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np

from stedfm_hf.data.archives.members import MAX_MEMBER_BYTES, printable
from stedfm_hf.data.repository.layout import STORED_DTYPES, Crop, Scaling
from stedfm_hf.data.settings import LABEL_KEY
from stedfm_hf.modeling.io_tiff_stedfm import read_tiff
from stedfm_hf.modeling.io_types_stedfm import pixel_size, unit_in_nm
from stedfm_hf.modeling.npy_stedfm import read_npy_header
from stedfm_hf.runs.closed_pickle import ClosedUnpickler

QUANTILES = (0.001, 0.999)
"""Quantiles by which 8-bit crops were scaled."""
MAX_HEADER_BYTES = 2**16
MAX_METADATA_BYTES = 2**18
MAX_METADATA_VALUES = 10_000
MAX_METADATA_DEPTH = 16
MAX_COMPRESSION_RATIO = 16
"""Largest ratio of unpacked to stored bytes; a dark crop compresses well, but a larger ratio is a zip bomb."""
ALWAYS_UNPACKED = 2**19
"""Number of bytes that are unpacked at any ratio."""
MAX_TEXT = 2000
"""Longest text that is searched for personal data, in quadratic time; longer texts are removed."""

_NPZ, _TIFF = b"PK\x03\x04", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UUID = r"[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}"
_NAME = re.compile(rf"(?:(?P<label>.+)-)?(?P<source>{_UUID})-(?P<y>\d{{1,7}})-(?P<x>\d{{1,7}})", re.IGNORECASE)
_OTHER_NAME = re.compile(r"(?P<label>)(?P<source>.+)-(?P<y>\d{1,7})-(?P<x>\d{1,7})")
_PERSONAL_KEY = re.compile(
    r"user|path|folder|director|(?<!pro)file|author|owner|experimenter|operator|e-?mail|host|computer|person", re.I
)
_PERSONAL_VALUE = re.compile(
    r"\\|(?:^|[\s'\"=:])[~/][^\s/]*/|^[~/]\S|\b[A-Za-z]:[\\/]|file:|/.*\.\w{2,5}$|\.(?:msr|obf|tiff?|npz|lif|czi|nd2)\b"
    r"|\S@\S+\.\w",
    re.IGNORECASE,
)


class NotACrop(ValueError):
    """A member cannot be read as a crop; the message is the reason."""


@dataclass(frozen=True)
class _SourceInfo:
    """Metadata of a source image, shared by all its crops."""

    label: str | None
    source: str | None
    series: str
    channel: str
    pixel_size_nm: tuple[float, float] | None
    size: tuple[int, int] | None
    metadata: dict[str, Any] = field(default_factory=dict)


def looks_like_crop(name: str, content: bytes) -> bool:
    """Return whether a member is a crop by its first bytes or its name; other members are skipped.

    Args:
        name: File name of the member.
        content: Content of the member.

    Example:
        >>> looks_like_crop("notes.txt", b"hello"), looks_like_crop("f-actin-0-224", b"damaged")
        (False, True)
    """
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    return content.startswith((_NPZ, *_TIFF)) or suffix in ("", "npz", "tif", "tiff")


def read_crop(name: str, content: bytes, *, label_key: str | None = LABEL_KEY, keep_metadata: bool = False) -> Crop:
    """Read a member as a crop.

    Args:
        name: File name of the member: `<uuid>-<row>-<column>`, or `<protein>-<uuid>-<row>-<column>`.
        content: Content of the member.
        label_key: Entry of the metadata that is the class label; None reads no label.
        keep_metadata: Whether names of people, paths and file names are kept in the metadata.

    Returns:
        The crop with unchanged pixels. 8-bit pixels are scaled already, by intensities that the archive does not hold.
        Other pixels have the scaling of the crop alone, because the archive does not hold the source.

    Raises:
        NotACrop: The member is not a crop, or refused.
        Exception: The bytes are damaged; any error of the libraries.

    Example:
        >>> buffer, metadata = io.BytesIO(), {"protein-id": "tubulin", "chan-id": "STED {2}"}
        >>> np.savez(buffer, image=np.zeros((224, 224), np.uint8), metadata=metadata)
        >>> name = "tubulin-0c0b7d4e-6f0a-3f5a-9f0e-0123456789ab-224-448"
        >>> crop = read_crop(name, buffer.getvalue())
        >>> crop.label, crop.source[:8], crop.series, crop.y, crop.x
        ('tubulin', '0c0b7d4e', 'STED {2}', 224, 448)
    """
    size_nm = None
    if content.startswith(_NPZ):
        pixels, info = _read_npz(content, label_key, keep_metadata)
    elif content.startswith(_TIFF):
        pixels, size_nm, imagej = _read_tiff(content)
        info = _source_info(imagej, label_key, keep_metadata)
    else:
        raise NotACrop("is neither an .npz nor a TIFF file; download the archive again")
    stem = re.sub(r"\.(npz|tiff?)$", "", name, flags=re.IGNORECASE)
    parts = _NAME.fullmatch(stem) or _OTHER_NAME.fullmatch(stem)
    y, x = (int(parts["y"]), int(parts["x"])) if parts else (0, 0)
    if info.size is not None and all(whole >= part for whole, part in zip(info.size, pixels.shape, strict=True)):
        # The last crops of a row and of a column were shifted inward, but their names hold the grid position.
        y, x = min(y, info.size[0] - pixels.shape[0]), min(x, info.size[1] - pixels.shape[1])
    from_name = _label(parts["label"]) if parts and label_key == LABEL_KEY else None
    return Crop(
        pixels,
        _scaling(pixels),
        source=info.source or (parts["source"] if parts else stem),
        label=info.label or from_name,
        pixel_size_nm=info.pixel_size_nm or size_nm,
        series=info.series,
        channel=info.channel,
        y=y,
        x=x,
        metadata=info.metadata,
    )


def _max_pixel_bytes(stored: int) -> int:
    """Return the largest size of the pixels of a member of `stored` bytes."""
    return min(max(ALWAYS_UNPACKED, MAX_COMPRESSION_RATIO * stored), MAX_MEMBER_BYTES)


def _scaling(pixels: np.ndarray) -> Scaling:
    """Return the scaling of a crop: 8-bit crops are scaled already, others get the quantiles of the crop."""
    if pixels.dtype == np.uint8:
        return Scaling(None, None, applied=True, quantiles=QUANTILES)
    from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range  # imports torch and transformers

    ((low, high),) = fit_intensity_range(pixels[None], "percentile", [100 * q for q in QUANTILES])
    return Scaling(float(low), float(high), applied=False, quantiles=QUANTILES, fitted_on="crop")


def _check_pixels(shape: tuple[int, ...], dtype: np.dtype[Any], stored: int) -> None:
    """Raise `NotACrop` if an image is not 2-D, has another dtype, or is too large for a member of `stored` bytes."""
    if dtype.newbyteorder("=").name not in STORED_DTYPES:
        raise NotACrop(f"its pixels are {dtype}; supported are {', '.join(STORED_DTYPES)}")
    if len(shape) != 2 or min(shape) < 1:
        raise NotACrop(f"its image has the shape {shape}, not (height, width)")
    if math.prod(shape) * dtype.itemsize > _max_pixel_bytes(stored):
        raise NotACrop(f"refused: it declares {shape} pixels of {dtype} in {stored} bytes")


# ------------------------------------------------------------------------------------- .npz


def _read_npz(content: bytes, label_key: str | None, keep_metadata: bool) -> tuple[np.ndarray, _SourceInfo]:
    """Read the pixels (H, W) and the metadata of an `.npz` member, given its bytes.

    Declared sizes are checked before anything is unpacked, so that a small member cannot fill the memory.

    Raises:
        NotACrop: The member has no image, or one that is too large, damaged or of another dtype.
    """
    _check_directory(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if "image.npy" not in members:
            raise NotACrop(f"has no array `image` (it holds {printable(', '.join(members)) or 'nothing'})")
        for info, limit in (
            (members["image.npy"], _max_pixel_bytes(len(content)) + MAX_HEADER_BYTES),
            (members.get("metadata.npy"), MAX_METADATA_BYTES),
        ):
            if info is None:
                continue
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.file_size > limit:
                raise NotACrop(f"refused: its {info.filename} unpacks to {info.file_size} bytes")
        image = archive.read(members["image.npy"])
        metadata = archive.read(members["metadata.npy"]) if "metadata.npy" in members else b""
    start, shape, fortran, dtype = _npy_header(image)
    _check_pixels(shape, dtype, len(content))
    if len(image) - start != math.prod(shape) * dtype.itemsize:
        raise NotACrop(f"its image {shape} of {dtype} has {len(image) - start} bytes; download the archive again")
    pixels = np.frombuffer(image, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    return pixels.astype(dtype.newbyteorder("="), copy=False), _read_metadata(metadata, label_key, keep_metadata)


def _check_directory(content: bytes) -> None:
    """Check that the list of members is at the end and as short as `numpy.savez` writes it, to limit memory use."""
    # The last 22 bytes of a zip without a comment describe its list of members; a zip64 has 20 bytes before them.
    end_record = content[-22:]
    if end_record[:4] != b"PK\x05\x06" or end_record[-2:] != b"\0\0" or content[-42:-38] == b"PK\x06\x07":
        raise NotACrop("is not a complete .npz file; download the archive again")
    if int.from_bytes(end_record[12:16], "little") > 4096:
        raise NotACrop("refused: it lists more members than a crop has")


def _npy_header(content: bytes) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Return the offset of the data, shape, Fortran order and dtype of an `.npy` file."""
    # The length of the header follows 8 bytes of magic and version; it has 2 bytes in version 1, 4 in later ones.
    start = 10 if content[6:7] == b"\1" else 12
    start += int.from_bytes(content[8:start], "little")
    return start, *_parse_header(content[:start])


@lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return read_npy_header(io.BytesIO(header))


@lru_cache(maxsize=64)
def _read_metadata(content: bytes, label_key: str | None, keep_metadata: bool) -> _SourceInfo:
    """Read a `metadata.npy`; cached, because consecutive crops are often from one image."""
    if not content:
        return _source_info({}, label_key, keep_metadata)
    start, _, _, dtype = _npy_header(content)
    if not dtype.hasobject:
        raise NotACrop("its metadata is not a dictionary")
    unpickler = ClosedUnpickler(content[start:])
    metadata = unpickler.load()
    if unpickler.placeholders:
        names = printable(", ".join(sorted(unpickler.placeholders)))
        raise NotACrop(f"refused: its metadata contains {names}, which is not plain data; no code was run")
    if isinstance(metadata, np.ndarray) and metadata.size == 1:
        metadata = metadata.item()
    if not isinstance(metadata, dict):
        raise NotACrop(f"its metadata is a {type(metadata).__name__}, not a dictionary")
    return _source_info(metadata, label_key, keep_metadata)


# ------------------------------------------------------------------------------------- TIFF


def _read_tiff(content: bytes) -> tuple[np.ndarray, tuple[float, float] | None, dict[str, Any]]:
    """Return the pixels (H, W), the pixel size (y, x) in nm or None, and the ImageJ metadata of a TIFF member."""
    series = read_tiff(io.BytesIO(content))
    if len(series) != 1 or series[0].info.shape[0] != 1:
        raise NotACrop(f"is a TIFF with {sum(each.info.shape[0] for each in series)} planes instead of one")
    info = series[0].info
    _check_pixels(info.shape[1:], np.dtype(info.dtype), len(content))
    return series[0].load()[0], info.pixel_size_nm, dict(series[0].metadata.get("imagej", {}))


# ------------------------------------------------------------------------------------- metadata


def _source_info(metadata: Mapping[Any, Any], label_key: str | None, keep_metadata: bool) -> _SourceInfo:
    """Collect the metadata of a source image; unless `keep_metadata`, without names of people, paths and files."""
    plain = _plain(metadata, 0, [0])
    # Each of these keys holds either the name of a series or the number of a channel.
    ids = [plain.get(key) for key in ("chan-id", "msr-key")]
    series = next((each for each in ids if isinstance(each, str) and (keep_metadata or not _is_personal(each))), "")
    channel = next((each for each in ids if isinstance(each, int)), 0)
    microscope = plain.get("msr-metadata")
    microscope = microscope if isinstance(microscope, dict) else {}
    label = plain.get(label_key) if label_key is not None else None
    sizes = [_number(microscope.get(f"Size{axis}")) for axis in "YX"]
    return _SourceInfo(
        label=_label(label),
        source=_source(plain.get("image-id")),
        series=series or "image",
        channel=str(channel),
        pixel_size_nm=pixel_size(*(_nanometres(microscope, axis) for axis in "YX")),
        size=(int(sizes[0]), int(sizes[1])) if sizes[0] and sizes[1] and max(sizes) < 2**31 else None,
        metadata=plain if keep_metadata else _without_personal_data(plain),
    )


def _label(value: Any) -> str | None:
    """Return a class label, or None if it is unknown."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    return text if text and text.lower() not in ("unknown", "none") else None


def _source(image_id: Any) -> str | None:
    """Return the id of a source image, hashed if it looks like a path or file name."""
    if not isinstance(image_id, str) or not image_id.strip():
        return None
    return sha256(image_id.encode()).hexdigest()[:32] if _is_personal(image_id) else image_id


def _nanometres(microscope: Mapping[str, Any], axis: str) -> float:
    """Return the pixel size along an axis in nm, in µm in the metadata by default; 0 if it is unknown."""
    unit = microscope.get(f"PhysicalSize{axis}Unit")
    return _number(microscope.get(f"PhysicalSize{axis}")) * (unit_in_nm("µm" if unit is None else unit) or 0.0)


def _number(value: Any) -> float:
    """Convert a number or its text to a float; anything else becomes 0."""
    try:
        number = float(value) if isinstance(value, str | int | float) else 0.0
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _plain(value: Any, depth: int, count: list[int]) -> Any:
    """Convert a value to plain data for JSON; values that JSON cannot hold become None.

    `depth` is the nesting level, and `count` a list with the number of values so far, which the recursive calls share.
    Both are limited, because a pickle of a few bytes can expand to any size; `NotACrop` is raised above the limits.
    """
    count[0] += 1
    if count[0] > MAX_METADATA_VALUES or depth > MAX_METADATA_DEPTH:
        raise NotACrop("refused: its metadata expands to more values than metadata of an image have")
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= MAX_METADATA_VALUES else None
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {_text(str(key)): _plain(item, depth + 1, count) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1, count) for item in value]
    if isinstance(value, str):
        count[0] += len(value) // 64
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return None  # JSON has no bytes, complex or very large numbers


def _text(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_personal(text: str) -> bool:
    return len(text) > MAX_TEXT or _PERSONAL_VALUE.search(text) is not None


def _without_personal_data(value: Any) -> Any:
    """Remove names of people, paths and file names from metadata."""
    if isinstance(value, dict):
        return {
            key: _without_personal_data(item)
            for key, item in value.items()
            if not _PERSONAL_KEY.search(key) and not _is_personal(key) and not _is_personal_value(item)
        }
    if isinstance(value, list):
        return [_without_personal_data(item) for item in value if not _is_personal_value(item)]
    return value


def _is_personal_value(value: Any) -> bool:
    return isinstance(value, str) and _is_personal(value)
