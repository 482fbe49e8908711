"""Nikon files of version 3.0, written chunk by chunk; headers are lists of typed values (CLX lite)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

Value = dict[str, "Value"] | str | int | float | bool | bytes


def encode(name: str, value: Value) -> bytes:
    """A named value; a dictionary ends with the positions of its items."""
    text = (name + "\0").encode("utf-16-le") if name else b""

    def head(kind: int) -> bytes:
        return bytes([kind, len(text) // 2]) + text

    if isinstance(value, bool):
        return head(1) + bytes([value])
    if isinstance(value, int):
        return head(3) + struct.pack("<I", value)
    if isinstance(value, float):
        return head(6) + struct.pack("<d", value)
    if isinstance(value, str):
        return head(8) + (value + "\0").encode("utf-16-le")
    if isinstance(value, bytes):
        return head(9) + struct.pack("<Q", len(value)) + value
    items = [encode(key, each) for key, each in value.items()]
    start = len(head(11)) + 12
    body = b"".join(items)
    places = b"".join(struct.pack("<Q", start + sum(map(len, items[:k]))) for k in range(len(items)))
    return head(11) + struct.pack("<IQ", len(items), start + len(body)) + body + places


def packed(content: bytes) -> bytes:
    """A compressed header."""
    return b"L\0" + bytes(10) + zlib.compress(content)


def attributes(shape: tuple[int, int, int], dtype: np.dtype, frames: int, row: int, compression: int) -> Value:
    height, width, samples = shape
    return {
        "uiWidth": width,
        "uiWidthBytes": row,
        "uiHeight": height,
        "uiComp": samples,
        "uiBpcInMemory": dtype.itemsize * 8,
        "uiBpcSignificant": dtype.itemsize * 8,
        "uiSequenceCount": frames,
        "uiTileWidth": 0,
        "uiTileHeight": 0,
        "eCompression": compression,
        "dCompressionParam": 0.0,
    }


def experiment(loops: list[tuple[str, int]]) -> Value:
    """The nested loops of an experiment, the slowest first."""
    (kind, count), inner = loops[0], loops[1:]
    if kind == "t":
        parameters: Value = {"uiCount": count, "dStart": 0.0, "dPeriod": 1.0, "dDuration": 1.0}
    elif kind == "z":
        parameters = {"uiCount": count, "dZLow": 0.0, "dZHigh": 2.0, "dZStep": 1.0, "dZHome": 0.0, "iType": 2}
    else:
        points: Value = {f"i{k:010d}": {"dPosX": 1.0 * k, "dPosY": 0.0, "dPosName": f"well {k}"} for k in range(count)}
        parameters = {"uiCount": count, "bUseZ": False, "Points": points}
    found: dict[str, Value] = {"eType": {"t": 1, "p": 2, "z": 4}[kind], "uLoopPars": parameters}
    if inner:
        found["ppNextLevelEx"] = {"i0000000000": experiment(inner)}
    return found


def picture(names: list[str], calibration: float, samples: int) -> Value:
    planes: Value = {
        f"a{k}": {"sDescription": name, "uiCompCount": samples, "uiSampleIndex": k, "uiColor": 255}
        for k, name in enumerate(names)
    }
    return {
        "bCalibrated": calibration > 0,
        "dCalibration": calibration,
        "sPicturePlanes": {"uiCount": len(names), "sPlaneNew": planes},
    }


def write_nd2(
    path: Path,
    array: np.ndarray,
    loops: list[tuple[str, int]],
    names: list[str],
    *,
    calibration: float = 0.02,
    lost: tuple[int, ...] = (),
    compressed: bool = False,
    padding: int = 0,
    headers: dict[bytes, bytes] | None = None,
) -> Path:
    """Write frames (n, height, width, samples) with an experiment, without the frames in `lost`."""
    frames, (height, width, samples) = len(array), array.shape[1:]
    row = width * samples * array.itemsize + padding
    about = attributes((height, width, samples), array.dtype, frames, row, 0 if compressed else 2)
    planes = picture(names, calibration, samples // len(names))
    content = {
        b"ImageAttributesLV!": encode("SLxImageAttributes", about),
        b"ImageMetadataSeqLV|0!": packed(encode("SLxPictureMetadata", planes)),
    }
    if loops:
        content[b"ImageMetadataLV!"] = encode("SLxExperiment", experiment(loops))
    for k, frame in enumerate(array):
        if k not in lost:
            rows = b"".join(line.tobytes() + bytes(padding) for line in frame)
            content[b"ImageDataSeq|%d!" % k] = bytes(8) + (zlib.compress(rows) if compressed else rows)
    content |= headers or {}
    file = bytearray(chunk(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32)).ljust(4096, b"\0")
    table = b""
    for name, data in content.items():
        table += name + struct.pack("<QQ", len(file), len(data))
        file += chunk(name, data)
    start = len(file)
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", start)
    file += chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", table + end)
    path.write_bytes(file)
    return path


def chunk(name: bytes, data: bytes, reserved: int = 4072) -> bytes:
    return struct.pack("<IIQ", 0x0ABECEDA, reserved, len(data)) + name.ljust(reserved, b"\0") + data
