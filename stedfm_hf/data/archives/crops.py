"""One member of the authors' archives as a crop: an `.npz` with pickled metadata, or a TIFF; nothing in it is run.

What the archives hold is in the reference's tar builder: `image` of 8 bit, scaled by the 0.001 and 0.999 quantiles of
the whole source, or of 16 bit less the source's minimum; `metadata`, a dictionary that `numpy.savez` pickled; and a
name that ends in the nominal place on the grid, row and column in pixels. (Reading: ours.)
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
from stedfm_hf.runs.closed_pickle import ClosedUnpickler

QUANTILES = (0.001, 0.999)
MAX_HEADER_BYTES = 2**16
MAX_METADATA_BYTES = 2**18
MAX_METADATA_VALUES = 10_000
MAX_METADATA_DEPTH = 16
# A dark crop may shrink a lot, but what is larger than that many times its bytes is a bomb.
MAX_UNPACKING = 16
ALWAYS_UNPACKED = 2**19
# The search for names of people takes quadratic time.
MAX_TEXT = 2000

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
    """A member cannot be read as a crop: what is wrong with it."""


@dataclass(frozen=True)
class _Facts:
    """What the metadata of a source image say; crops of one image share them."""

    label: str | None
    source: str | None
    series: str
    channel: str
    pixel_size_nm: tuple[float, float] | None
    size: tuple[int, int] | None
    rest: dict[str, Any] = field(default_factory=dict)


def looks_like_crop(name: str, content: bytes) -> bool:
    """Whether a member is to be read; other files in the archive are left out.

    >>> looks_like_crop("notes.txt", b"hello"), looks_like_crop("f-actin-0-224", b"damaged")
    (False, True)
    """
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    return content.startswith((_NPZ, *_TIFF)) or suffix in ("", "npz", "tif", "tiff")


def read_crop(name: str, content: bytes, *, label_key: str | None = LABEL_KEY, keep_metadata: bool = False) -> Crop:
    """Reads a member.

    Args:
        name: of the member: `<uuid>-<j>-<i>`, or `<protein>-<uuid>-<j>-<i>`.
        content: its bytes.
        label_key: the entry of the metadata that is the class; None for crops without one.
        keep_metadata: whether names of people, paths and names of files stay in the metadata.

    Returns:
        The crop. 8-bit pixels are scaled already, by limits that the archive does not tell; others are as they were,
        with the quantiles of the crop alone, because the source is not in the archive.

    Raises:
        NotACrop: what is wrong in words.
        Exception: whatever damaged bytes raise in the libraries.

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
        pixels, facts = _read_npz(content, label_key, keep_metadata)
    elif content.startswith(_TIFF):
        pixels, size_nm, notes = _read_tiff(content)
        facts = _facts(notes, label_key, keep_metadata)
    else:
        raise NotACrop("is neither an .npz nor a TIFF; get the archive again")
    stem = re.sub(r"\.(npz|tiff?)$", "", name, flags=re.IGNORECASE)
    parts = _NAME.fullmatch(stem) or _OTHER_NAME.fullmatch(stem)
    y, x = (int(parts["y"]), int(parts["x"])) if parts else (0, 0)
    if facts.size is not None and all(n >= side for n, side in zip(facts.size, pixels.shape, strict=True)):
        # The last crops of a row and of a column were shifted inward; their names tell the grid all the same.
        y, x = min(y, facts.size[0] - pixels.shape[0]), min(x, facts.size[1] - pixels.shape[1])
    from_name = _label(parts["label"]) if parts and label_key == LABEL_KEY else None
    return Crop(
        pixels,
        _scaling(pixels),
        source=facts.source or (parts["source"] if parts else stem),
        label=facts.label or from_name,
        pixel_size_nm=facts.pixel_size_nm or size_nm,
        series=facts.series,
        channel=facts.channel,
        y=y,
        x=x,
        metadata=facts.rest,
    )


def _largest(stored: int) -> int:
    """Bytes of pixels that a member of `stored` bytes may have."""
    return min(max(ALWAYS_UNPACKED, MAX_UNPACKING * stored), MAX_MEMBER_BYTES)


def _scaling(pixels: np.ndarray) -> Scaling:
    if pixels.dtype == np.uint8:
        return Scaling(None, None, applied=True, quantiles=QUANTILES)
    from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range  # imports torch and transformers

    ((low, high),) = fit_intensity_range(pixels[None], "percentile", [100 * q for q in QUANTILES])
    return Scaling(float(low), float(high), applied=False, quantiles=QUANTILES, fitted_on="crop")


def _check_pixels(shape: tuple[int, ...], dtype: np.dtype[Any], stored: int) -> None:
    if dtype.newbyteorder("=").name not in STORED_DTYPES:
        raise NotACrop(f"its pixels are {dtype}; known are {', '.join(STORED_DTYPES)}")
    if len(shape) != 2 or min(shape) < 1:
        raise NotACrop(f"its image has the shape {shape}, not (height, width)")
    if math.prod(shape) * dtype.itemsize > _largest(stored):
        raise NotACrop(f"refused, because it declares {shape} pixels of {dtype} in {stored} bytes")


# ------------------------------------------------------------------------------------- .npz


def _read_npz(content: bytes, label_key: str | None, keep_metadata: bool) -> tuple[np.ndarray, _Facts]:
    _check_directory(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if "image.npy" not in members:
            raise NotACrop(f"holds no array `image` (but {printable(', '.join(members)) or 'nothing'})")
        for info, limit in (
            (members["image.npy"], _largest(len(content)) + MAX_HEADER_BYTES),
            (members.get("metadata.npy"), MAX_METADATA_BYTES),
        ):
            if info is None:
                continue
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.file_size > limit:
                raise NotACrop(f"refused, because its {info.filename} unpacks to {info.file_size} bytes")
        image = archive.read(members["image.npy"])
        metadata = archive.read(members["metadata.npy"]) if "metadata.npy" in members else b""
    start, shape, fortran, dtype = _npy_header(image)
    _check_pixels(shape, dtype, len(content))
    if len(image) - start != math.prod(shape) * dtype.itemsize:
        raise NotACrop(f"its image {shape} of {dtype} has {len(image) - start} bytes; get the archive again")
    pixels = np.frombuffer(image, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    return pixels.astype(dtype.newbyteorder("="), copy=False), _facts_of(metadata, label_key, keep_metadata)


def _check_directory(content: bytes) -> None:
    """A list of members of the size that two have, where `numpy.savez` writes it: a longer one would fill memory."""
    end = content[-22:]
    if end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0" or content[-42:-38] == b"PK\x06\x07":
        raise NotACrop("is no whole .npz; get the archive again")
    if int.from_bytes(end[12:16], "little") > 4096:
        raise NotACrop("refused, because it lists more members than a crop has")


def _npy_header(content: bytes) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Where the data begin, and shape, Fortran order and dtype of an `.npy`."""
    wide = content[6:7] != b"\1"
    start = 8 + (4 if wide else 2)
    start += int.from_bytes(content[8:start], "little")
    return start, *_parse_header(content[:start])


@lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = io.BytesIO(header)
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


@lru_cache(maxsize=64)
def _facts_of(content: bytes, label_key: str | None, keep_metadata: bool) -> _Facts:
    """The facts in a `metadata.npy`; crops of one image follow each other, so most are read once for many."""
    if not content:
        return _facts({}, label_key, keep_metadata)
    start, _, _, dtype = _npy_header(content)
    if not dtype.hasobject:
        raise NotACrop("its metadata is no dictionary")
    unpickler = ClosedUnpickler(content[start:])
    found = unpickler.load()
    if unpickler.placeholders:
        names = printable(", ".join(sorted(unpickler.placeholders)))
        raise NotACrop(f"refused, because its metadata names {names}, which is no plain data; nothing of it was run")
    if isinstance(found, np.ndarray) and found.size == 1:
        found = found.item()
    if not isinstance(found, dict):
        raise NotACrop(f"its metadata is a {type(found).__name__}, not a dictionary")
    return _facts(found, label_key, keep_metadata)


# ------------------------------------------------------------------------------------- TIFF


def _read_tiff(content: bytes) -> tuple[np.ndarray, tuple[float, float] | None, dict[str, Any]]:
    found = read_tiff(io.BytesIO(content))
    if len(found) != 1 or found[0].info.shape[0] != 1:
        raise NotACrop(f"is a TIFF of {sum(each.info.shape[0] for each in found)} planes, not of one")
    info = found[0].info
    _check_pixels(info.shape[1:], np.dtype(info.dtype), len(content))
    return found[0].load()[0], info.pixel_size_nm, dict(found[0].metadata.get("imagej", {}))


# ------------------------------------------------------------------------------------- metadata


def _facts(metadata: Mapping[Any, Any], label_key: str | None, keep_metadata: bool) -> _Facts:
    plain = _plain(metadata, 0, [0])
    names = [plain.get(key) for key in ("chan-id", "msr-key")]
    series = next((name for name in names if isinstance(name, str) and (keep_metadata or not _is_personal(name))), "")
    number = next((name for name in names if isinstance(name, int)), 0)
    microscope = plain.get("msr-metadata")
    microscope = microscope if isinstance(microscope, dict) else {}
    label = plain.get(label_key) if label_key is not None else None
    sizes = [_number(microscope.get(f"Size{axis}")) for axis in "YX"]
    return _Facts(
        label=_label(label),
        source=_source(plain.get("image-id")),
        series=series or "image",
        channel=str(number),
        pixel_size_nm=pixel_size(*(_nanometres(microscope, axis) for axis in "YX")),
        size=(int(sizes[0]), int(sizes[1])) if sizes[0] and sizes[1] and max(sizes) < 2**31 else None,
        rest=plain if keep_metadata else _without_people(plain),
    )


def _label(value: Any) -> str | None:
    """A class, where one is known."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    return text if text and text.lower() not in ("unknown", "none") else None


def _source(image_id: Any) -> str | None:
    """The id of a source; one that is a path becomes a number that does not tell it."""
    if not isinstance(image_id, str) or not image_id.strip():
        return None
    return sha256(image_id.encode()).hexdigest()[:32] if _is_personal(image_id) else image_id


def _nanometres(microscope: Mapping[str, Any], axis: str) -> float:
    unit = microscope.get(f"PhysicalSize{axis}Unit")
    return _number(microscope.get(f"PhysicalSize{axis}")) * (unit_in_nm("µm" if unit is None else unit) or 0.0)


def _number(value: Any) -> float:
    """A number, also one that was written as text; 0 for anything else."""
    try:
        number = float(value) if isinstance(value, str | int | float) else 0.0
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _plain(value: Any, depth: int, count: list[int]) -> Any:
    """The value as JSON has it; bounded, because a pickle of a few bytes can unfold to any size."""
    count[0] += 1
    if count[0] > MAX_METADATA_VALUES or depth > MAX_METADATA_DEPTH:
        raise NotACrop("refused, because its metadata unfolds to more than metadata are")
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
    return None  # bytes, complex and giant numbers: nothing that JSON has


def _text(text: str) -> str:
    """Without halves of letters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_personal(text: str) -> bool:
    return len(text) > MAX_TEXT or _PERSONAL_VALUE.search(text) is not None


def _without_people(value: Any) -> Any:
    """Metadata without names of people, paths and names of files."""
    if isinstance(value, dict):
        return {
            key: _without_people(item)
            for key, item in value.items()
            if not _PERSONAL_KEY.search(key) and not _is_personal(key) and not _hidden(item)
        }
    if isinstance(value, list):
        return [_without_people(item) for item in value if not _hidden(item)]
    return value


def _hidden(value: Any) -> bool:
    return isinstance(value, str) and _is_personal(value)
