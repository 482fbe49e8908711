"""List the planes of stacks, and what the readers of microscope formats share.

A stack is an array with any number of axes. Its planes are images with all channels, and each is a series.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..modeling.io_types_stedfm import (
    MAX_PLANES,
    ImageReadError,
    LazySeries,
    make_info,
    one_line,
    pixel_size,
    plane_name,
)

Read = Callable[[Mapping[str, int], range, range], np.ndarray]
_DECLARATIONS = ("<!DOCTYPE", "<!ENTITY")


@dataclass(frozen=True)
class Stack:
    """Stack of planes of a file.

    Attributes:
        name: Name of the stack.
        shape: Number of channels, height and width of a plane, in pixels.
        dtype: Type of the pixels.
        read: Function that decodes a region of a plane, (C, h, w), from the position on the other axes, the rows and
            the columns.
        axes: Lengths of the other axes by name, the slowest first.
        stored: Size of the stored pixels in bytes; for a file with several stacks, the size of the file.
        packed: Whether the pixels are compressed.
        by_region: Whether a region is decoded without the rest of the plane.
        spacing: Pixel size in nm along the rows and the columns; None where it is not in the file.
        channel_names: Names of the channels.
        metadata: Facts as plain data.
        plane_metadata: Function that returns facts on the plane at a position.
        missing: Positions, in the order of `axes`, whose planes are not in the file.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Read
    axes: Mapping[str, int] = field(default_factory=dict)
    stored: int = 0
    packed: bool = False
    by_region: bool = True
    spacing: tuple[float | None, float | None] = (None, None)
    channel_names: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    plane_metadata: Callable[[Mapping[str, int]], Mapping[str, Any]] = lambda position: {}
    missing: frozenset[tuple[int, ...]] = frozenset()


def list_planes(stack: Stack) -> list[LazySeries]:
    """List the planes of a stack as series, after checking the declared sizes.

    Raises:
        ImageReadError: If the file cannot hold as many pixels, or all planes are missing.
    """
    lengths = tuple(stack.axes.values())
    planes = math.prod(lengths)
    if min(lengths, default=1) < 1:
        raise ImageReadError(f"the stack is empty (axes {dict(stack.axes)}); export it again")
    present = planes - len(stack.missing)
    if planes > MAX_PLANES or (
        not stack.packed and present * math.prod(stack.shape) * stack.dtype.itemsize > stack.stored
    ):
        raise ImageReadError(f"truncated or damaged: too short for {planes} plane(s) of {stack.shape}; copy it again")
    # The checks and the description are the same for all planes.
    info = make_info(
        stack.name,
        stack.shape,
        stack.dtype,
        pixel_size(*stack.spacing),
        [one_line(name) or str(k) for k, name in enumerate(stack.channel_names)],
        stored=stack.stored,
        packed=stack.packed,
    )
    metadata = dict(stack.metadata)
    found = list[LazySeries]()
    absent = list[str]()
    for index in np.ndindex(*lengths):
        position = dict(zip(stack.axes, index, strict=True))
        shown = {axis: k for axis, k in position.items() if stack.axes[axis] > 1}
        name = plane_name(info.name, shown)
        if index in stack.missing:
            absent.append(name)
            continue

        def load_region(rows: range, columns: range, position: dict[str, int] = position) -> np.ndarray:
            return stack.read(position, rows, columns)

        def load(position: dict[str, int] = position) -> np.ndarray:
            return stack.read(position, range(stack.shape[1]), range(stack.shape[2]))

        facts = ({"plane": shown} if shown else {}) | dict(stack.plane_metadata(position))
        found.append(
            LazySeries(replace(info, name=name), load, metadata | facts, load_region if stack.by_region else None)
        )
    if not found:
        raise ImageReadError("truncated: none of its planes is in the file; copy it again")
    if absent:
        note = f"{len(absent)} of {planes} planes are not in the file, such as {absent[0]}"
        notes = [*metadata.get("notes", ()), note]
        found = [replace(each, metadata=each.metadata | {"notes": notes}) for each in found]
    return found


def list_parts(parts: Iterable[tuple[str, Callable[[], Iterable[LazySeries]]]]) -> list[LazySeries]:
    """List the series of all parts of a file; a part that cannot be read is listed in `metadata["left_out"]`.

    Args:
        parts: Name of each part, and the function that lists its series.

    Raises:
        ImageReadError: If no part can be read.
    """
    found, left_out, errors = list[LazySeries](), dict[str, str](), list[Exception]()
    for name, list_series in parts:
        try:
            found.extend(list_series())
        except MemoryError:
            raise
        except Exception as error:
            detail = f"damaged ({type(error).__name__}: {error}"[:200] + "); copy or export it again"
            left_out[one_line(name) or "image"] = one_line(str(error) if isinstance(error, ImageReadError) else detail)
            errors.append(error)
    if left_out and not found:
        first, why = next(iter(left_out.items()))
        if len(errors) == 1:
            raise errors[0]
        raise ImageReadError(f"none of its {len(left_out)} images can be read ({first}: {why}); export it again")
    if not left_out:
        return found
    name, why = next(iter(left_out.items()))
    note = f"{len(left_out)} of its images cannot be read, such as {name} ({why})"
    return [
        replace(
            each,
            metadata=each.metadata | {"left_out": left_out, "notes": [*each.metadata.get("notes", ()), note]},
        )
        for each in found
    ]


def import_reader(module: str, files: str) -> Any:
    """Import the library that reads a format.

    Args:
        module: Name of the module.
        files: Files of the format, for the message.

    Raises:
        ImageReadError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ImageReadError(
            f'{files} need {library}, which is not installed; pip install "stedfm-hf[formats]"'
        ) from error


def refuse_entities(text: str | bytes) -> None:
    """Refuse XML with declarations of entities, which can grow without limit when they are expanded.

    Raises:
        ImageReadError: If there is a declaration.
    """
    content = text.encode(errors="replace") if isinstance(text, str) else text
    for mark in _DECLARATIONS:
        if any(mark.encode(encoding) in content for encoding in ("utf-8", "utf-16-le", "utf-16-be")):
            raise ImageReadError("its XML header declares entities, which is not allowed; export it again")


def parse_xml(text: str) -> ElementTree.Element:
    """Parse the XML header of a file.

    Raises:
        ImageReadError: If it declares entities.
    """
    refuse_entities(text)
    return ElementTree.fromstring(text)


def number(text: object) -> float | None:
    """Return a text as a finite number, or None.

    Example:
        >>> number("1E-07"), number("nan"), number(None)
        (1e-07, None, None)
    """
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def exact_type(types: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    """Return the smallest type that holds the numbers of all types.

    Raises:
        ImageReadError: If there is none of up to 64 bit.

    Example:
        >>> exact_type([np.dtype("uint8"), np.dtype("uint16")]).name
        'uint16'
    """
    found = list(types)
    common = np.result_type(*found)
    if not all(np.can_cast(each, common) for each in found) or common.kind not in "buif" or common.itemsize > 8:
        raise ImageReadError(f"no type holds the numbers of all channels ({', '.join(str(each) for each in found)})")
    return common


def image_axes(lengths: Mapping[str, int]) -> tuple[str, str]:
    """Return the axes of the rows and the columns of an image.

    They are the axes named y and x if both are longer than 1. In a section, they are the two fastest axes that are.

    Args:
        lengths: Lengths of the axes by name, the slowest first.

    Raises:
        ImageReadError: If there are fewer than two axes.

    Example:
        >>> image_axes({"t": 5, "y": 64, "x": 48}), image_axes({"z": 30, "y": 1, "x": 48})
        (('y', 'x'), ('z', 'x'))
    """
    if lengths.get("y", 0) > 1 and lengths.get("x", 0) > 1:
        return "y", "x"
    names = list(lengths)
    # Axes of length 1 are used only if there are no others.
    chosen = sorted(range(len(names)), key=lambda k: (lengths[names[k]] == 1, -k))[:2]
    if len(chosen) < 2:
        raise ImageReadError(f"has only the axes {dict(lengths)}, which is not an image; choose another series")
    return names[min(chosen)], names[max(chosen)]


def rows_of(chunk: np.ndarray, rows: range, columns: range) -> np.ndarray:
    """Return a region of planes (..., H, W)."""
    return chunk[..., rows.start : rows.stop, columns.start : columns.stop]


def counted(parts: Iterator[Any], limit: int) -> Iterator[Any]:
    """Yield parts of a file, up to a limit.

    Raises:
        ImageReadError: If there are more.
    """
    for k, part in enumerate(parts):
        if k >= limit:
            raise ImageReadError(f"damaged: declares more than {limit} parts; copy it again")
        yield part
