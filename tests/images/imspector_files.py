"""Imspector files, made byte by byte as the format's description has it (OBF version 6 and 2)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CODES = {"u1": 0x01, "i1": 0x02, "u2": 0x04, "i2": 0x08, "u4": 0x10, "f4": 0x40, "f8": 0x80, "c8": 0x40000040}
METRE, SECOND, NOTHING = (1, 0), (0, 1), (0, 0)  # powers of metre and second


@dataclass
class Stack:
    """A stack to be written: array in the order of NumPy, everything else per axis in that order, too."""

    array: np.ndarray
    labels: tuple[str, ...] = ("ExpControl Y", "ExpControl X")
    lengths: tuple[float, ...] = ()
    units: tuple[tuple[int, int], ...] = ()
    name: str = "Ch1 {0}"
    packed: bool = True
    samples_written: int = 0
    lost: int = 0  # bytes of pixels that are left out


def unit(powers: tuple[int, int]) -> bytes:
    metre, second = powers
    return struct.pack("<18id", metre, 1, 0, 1, second, 1, *([0, 1] * 6), 1.0)


def stack_bytes(stack: Stack, start: int, last: bool) -> bytes:
    array = stack.array
    rank, sizes = array.ndim, array.shape[::-1]
    lengths = (stack.lengths or tuple(20e-9 * n for n in array.shape))[::-1]
    units = (stack.units or (METRE,) * rank)[::-1]
    pixels = array.tobytes()[: array.nbytes - stack.lost]
    data = zlib.compress(pixels) if stack.packed else pixels
    name = stack.name.encode()
    labels = b"".join(struct.pack("<I", len(label)) + label.encode() for label in stack.labels[::-1])
    fixed = struct.pack("<31I", *([0] * 31))
    footer = struct.pack("<I", 128) + fixed[:-4] + struct.pack("<I", 0)
    body = unit(NOTHING) + b"".join(unit((units + (NOTHING,) * 15)[k]) for k in range(15))
    body += struct.pack("<2Q", 0, 0) + struct.pack("<Q", 0) + struct.pack("<QI", 0, 6) + struct.pack("<Q", 0)
    body += struct.pack("<2Q", stack.samples_written, 0)
    footer = struct.pack("<I", 128 + len(body)) + footer[4:] + body + labels
    size = struct.calcsize("<16s17I30d5I3Q") + len(name) + len(data) + len(footer)
    header = struct.pack(
        "<16s17I30d5I3Q",
        b"OMAS_BF_STACK\n\xff\xff",
        6,
        rank,
        *(sizes + (0,) * 15)[:15],
        *(lengths + (0.0,) * 15)[:15],
        *([0.0] * 15),
        CODES[array.dtype.str[1:]],
        int(stack.packed),
        5,
        len(name),
        0,
        0,
        len(data),
        0 if last else start + size,
    )
    return header + name + data + footer


def write_obf(path: Path, *stacks: Stack) -> Path:
    start = 10 + 4 + 8 + 4 + 8 + 4
    content = b""
    for k, stack in enumerate(stacks):
        content += stack_bytes(stack, start + len(content), last=k == len(stacks) - 1)
    head = b"OMAS_BF\n\xff\xff" + struct.pack("<IQI", 2, start if stacks else 0, 0) + struct.pack("<Q", 34)
    path.write_bytes(head + struct.pack("<I", 0) + content)
    return path
