"""Read Imspector files (`.msr`, `.obf`) of Abberior instruments with obffile: every stack is a series.

The image of a stack is in its axes named Y and X, or, for a section (XZ), in its two fastest axes longer than one.
Every other axis longer than one is split into planes. The rules are in docs/reference/file-formats.md.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..modeling.io_types_stedfm import (
    RGB,
    ImageReadError,
    LazySeries,
    file_size,
    make_info,
    one_line,
    pixel_size,
    plane_name,
    unique_names,
)
from .stacks import list_parts

if TYPE_CHECKING:
    import obffile

_ZLIB = 1
_MAX_STACKS = 10_000
_LARGEST_PIXEL = 10_000.0
"""Largest pixel size in nm of lengths without a unit; others were never set."""

METRES = "the lengths have no unit and are taken for metres, as Imspector does"


def read_imspector(handle: IO[bytes]) -> list[LazySeries]:
    """List the planes of an Imspector file (a reader for `register_reader`)."""
    try:
        import obffile
    except ImportError as error:
        raise ImageReadError("Imspector files need obffile, which is not installed; pip install obffile") from error
    if handle.read(10) != b"OMAS_BF\n\xff\xff":
        raise ImageReadError("is not an OBF file, such as an old .msr file; open it in Imspector and save it as .obf")
    handle.seek(0)
    stacks, problem = _stacks(handle, obffile.ObfFile(handle).header.first_stack_pos)
    if not stacks:
        raise problem or ImageReadError("holds no image stack; save the measurement again with its images")
    names = unique_names(one_line(stack.name) or "stack" for stack in stacks)
    # A compressed stack can be read from its start only: the last one is cached for its other planes.
    pixels = functools.lru_cache(maxsize=1)(lambda number: _pixels(stacks[number], handle))
    parts = [
        (name, functools.partial(_planes, stack, name, functools.partial(pixels, k), file_size(handle)))
        for k, (stack, name) in enumerate(zip(stacks, names, strict=True))
    ]
    if problem:
        parts.append((f"stacks after {names[-1]}", functools.partial(_refuse, problem)))
    return list_parts(parts)


def _refuse(problem: Exception) -> list[LazySeries]:
    raise problem


def _stacks(handle: IO[bytes], position: int) -> tuple[list[obffile.ObfStack], Exception | None]:
    """Return the stacks of a file, from the position of the first one in bytes; each stack has that of the next.

    `ObfFile.stacks` is not used, because it keeps one stack per name and follows a cycle without end.

    Returns:
        Stacks, and the error that ended the list, if one did.
    """
    import obffile

    found, visited = list[obffile.ObfStack](), set[int]()
    while position:
        if position in visited or len(visited) >= _MAX_STACKS:
            return found, ImageReadError(
                f"damaged: its list of stacks has a cycle after {len(visited)}; copy it again"
            )
        visited.add(position)
        handle.seek(position)
        try:
            stack = obffile.ObfStack(handle, squeeze=False)
        except Exception as error:
            return found, error
        found.append(stack)
        position = stack.header.next_stack_pos
    return found, None


def _planes(stack: obffile.ObfStack, name: str, pixels: Callable[[], np.ndarray], stored: int) -> list[LazySeries]:
    """List the planes of a stack as series, which read their pixels only when they are loaded.

    Args:
        stack: Stack of the file.
        name: Unique name of the stack.
        pixels: Function that reads all pixels of the stack.
        stored: Size of the file in bytes.

    Raises:
        ImageReadError: The pixels are missing, or the stack declares more of them than the file can hold.
    """
    header, shape = stack.header, stack.shape
    packed = header.compression_type == _ZLIB
    if header.data_pos + header.data_length > stored:
        raise ImageReadError(f"truncated: the pixels of stack {name!r} are missing; copy the file again")
    samples = shape[-1] if "S" in stack.dims else 1
    lengths = shape[:-1] if samples > 1 else shape
    labels = _labels(stack, len(lengths))
    y, x = _image_axes(labels, lengths)
    # Checks the size of the whole stack, which is read at once.
    make_info(name, (1, 1, math.prod(shape)), stack.dtype, None, (), stored=stored, packed=packed)

    found = list[LazySeries]()
    spacing = [_spacing(stack, k, len(lengths)) for k in (y, x)]
    others = [k for k in range(len(lengths)) if k not in (y, x)]
    metadata: dict[str, Any] = {"format": "Imspector", "axes": labels}
    if None not in spacing and any(_is_without_unit(stack, k, len(lengths)) for k in (y, x)):
        if max(each or 0.0 for each in spacing) < _LARGEST_PIXEL:
            metadata["notes"] = [METRES]
        else:
            spacing = [None, None]
    if stack.header.description:
        metadata["description"] = one_line(stack.header.description)[:500]
    for indices in np.ndindex(*(lengths[k] for k in others)):
        position = {labels[k]: i for k, i in zip(others, indices, strict=True) if lengths[k] > 1}
        info = make_info(
            plane_name(name, position),
            (min(samples, 3), lengths[y], lengths[x]),
            stack.dtype,
            pixel_size(*spacing),
            RGB if samples > 1 else (),
            stored=stored,
            packed=packed,
        )

        # The default binds the indices of this plane, because the loop changes them.
        def load(indices: tuple[int, ...] = indices) -> np.ndarray:
            """Return the pixels of the plane, (C, H, W)."""
            index: list[int | slice] = [slice(None)] * len(shape)
            for k, i in zip(others, indices, strict=True):
                index[k] = i
            plane = pixels()[tuple(index)]
            plane = plane if samples > 1 else plane[..., None]
            plane = plane if y < x else plane.swapaxes(0, 1)
            # The copy lets the memory of the stack be freed.
            return plane[..., :3].transpose(2, 0, 1).copy()

        found.append(LazySeries(info, load, metadata | ({"plane": position} if position else {})))
    return found


def _labels(stack: obffile.ObfStack, rank: int) -> list[str]:
    """Return lower-case axis names in the order of the array: "ExpControl X" is `x`; unnamed axes are numbered."""
    given = [(text.split() or [""])[-1].lower() for text in stack.footer.labels[:rank]]
    given += [""] * (rank - len(given))
    default = "xyzct"
    named = [text if text not in ("", "none") else default[k : k + 1] or f"axis{k}" for k, text in enumerate(given)]
    return list(unique_names(named))[::-1]


def _image_axes(labels: list[str], lengths: tuple[int, ...]) -> tuple[int, int]:
    """Return the axes of rows and columns: those named y and x if both are longer than 1, else the fastest two.

    Raises:
        ImageReadError: The stack has fewer than two axes.
    """
    if len(lengths) < 2:
        raise ImageReadError(
            f"holds a stack with only {len(lengths)} axis, which is not an image; choose another series"
        )
    if "y" in labels and "x" in labels:
        y, x = labels.index("y"), labels.index("x")
        if lengths[y] > 1 and lengths[x] > 1:
            return y, x
    # The last axes are the fastest; axes of length 1 are used only if there are no others.
    fastest = sorted(range(len(lengths)), key=lambda k: (lengths[k] == 1, -k))[:2]
    return min(fastest), max(fastest)


def _unit(stack: obffile.ObfStack, axis: int, rank: int) -> Any:
    """Return the unit of an axis of the array, or None; the file lists axes in reverse order."""
    k = rank - 1 - axis
    return stack.footer.si_dimensions[k] if k < len(stack.footer.si_dimensions) else None


def _powers(unit: Any) -> tuple[Any, ...]:
    """Return the powers of the base units except for the metre."""
    return (unit.kilograms, unit.seconds, unit.amperes, unit.kelvin, unit.moles, unit.candela, unit.radian)


def _is_without_unit(stack: obffile.ObfStack, axis: int, rank: int) -> bool:
    """Return whether a length has no unit, as in files of acquisition scripts."""
    unit = _unit(stack, axis, rank)
    return unit is None or not (unit.meters[0] or any(power[0] for power in _powers(unit)))


def _spacing(stack: obffile.ObfStack, axis: int, rank: int) -> float | None:
    """Return the pixel size along an axis of the array in nm, or None if its unit is not a length."""
    k = rank - 1 - axis
    unit, length = _unit(stack, axis, rank), abs(stack.header.lengths[k])
    if unit is not None and not _is_without_unit(stack, axis, rank):
        if unit.meters[0] != unit.meters[1] or any(power[0] for power in _powers(unit)):
            return None
        length *= unit.scale_factor or 1.0
    return length / stack.header.res[k] * 1e9


def _pixels(stack: obffile.ObfStack, handle: IO[bytes]) -> np.ndarray:
    """Read all pixels of a stack, in the shape of the array; pixels that were not measured are 0.

    Raises:
        ImageReadError: Measured pixels are missing, because the file is truncated. Chunked stacks are not checked.
    """
    header, footer = stack.header, stack.footer
    if footer.num_chunk_positions or header.compression_type != _ZLIB:
        if not footer.num_chunk_positions and not footer.samples_written and header.data_length < stack.nbytes:
            raise ImageReadError(f"truncated: stack {stack.name!r} lacks pixels; copy the file again")
        return stack.asarray()
    # obffile would decompress without a limit, and replace missing bytes by zeros.
    handle.seek(header.data_pos)
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(handle.read(header.data_length), stack.nbytes)
    if len(raw) < stack.nbytes:
        if not unpacker.eof or not 0 < (footer.samples_written or 0) < stack.size:
            raise ImageReadError(f"truncated: stack {stack.name!r} lacks pixels; copy the file again")
        raw += bytes(stack.nbytes - len(raw))
    return np.frombuffer(raw, dtype=stack.dtype).reshape(stack.shape)
