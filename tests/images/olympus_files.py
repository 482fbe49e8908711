"""Olympus files: settings as text, planes as TIFF, and compound files byte by byte as [MS-CFB] has them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import tifffile

SECTOR, END, FREE, FAT, NONE = 512, 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF


def settings(order: str, unit: str = "um", dyes: tuple[str, ...] = ()) -> bytes:
    """The main settings file; order lists the axes, the fastest first."""
    text = f'[Axis Parameter Common]\r\nAxisCount={len(order)}\r\nAxisOrder="{order}"\r\n'
    for k, axis in enumerate(order):
        text += f'[Axis {k} Parameters Common]\r\nAxisCode="{axis}"\r\nStartPosition=0\r\nEndPosition=12\r\n'
        text += f'UnitName="{unit}"\r\n'
    for k, dye in enumerate(dyes):
        text += f'[Channel {k + 1} Parameters]\r\nCH Name="CH{k + 1}"\r\nDyeName="{dye}"\r\n'
    text += '[ProfileSaveInfo]\r\nName="OIF"\r\nVersion="2.0.0.0"\r\nPtyFileNameS="first.oif.files\\s_C001.pty"\r\n'
    return b"\xff\xfe" + text.encode("utf-16-le")


def planes(array: np.ndarray, axes: str) -> dict[str, bytes]:
    """The TIFF files of an array whose last two axes are the image, by name."""
    found = {}
    for index in np.ndindex(*array.shape[:-2]):
        name = "".join(f"{axis}{k + 1:03d}" for axis, k in zip(axes, index, strict=True))
        stream = io.BytesIO()
        tifffile.imwrite(stream, array[index])
        found[f"s_{name}.tif"] = stream.getvalue()
    return found


def write_oif(path: Path, main: bytes, files: dict[str, bytes]) -> Path:
    """Write an `.oif` file and its folder."""
    path.write_bytes(main)
    folder = path.parent / f"{path.name}.files"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return path


def write_oib(path: Path, main: bytes, files: dict[str, bytes]) -> Path:
    """Write an `.oib` file: every file is a stream of a compound file, listed in OibInfo.txt."""
    streams = {f"Stream{k:05d}": content for k, content in enumerate((main, *files.values()))}
    info = '[OibSaveInfo]\r\nName="OIB"\r\nVersion="2.0.0.0"\r\nMainFileName=Stream00000\r\nStream00000=a.oif\r\n'
    info += "".join(f"Stream{k:05d}=Storage00001/{name}\r\n" for k, name in enumerate(files, 1))
    streams["OibInfo.txt"] = b"\xff\xfe" + info.encode("utf-16-le")
    return write_compound(path, streams)


def write_compound(path: Path, streams: dict[str, bytes]) -> Path:
    """Write a compound file of version 3 without a mini stream."""
    table, sectors, entries = list[int](), list[bytes](), list[bytes]()

    def chain(content: bytes) -> int:
        count = max(1, -(-len(content) // SECTOR))
        start = len(sectors)
        table.extend([*range(start + 1, start + count), END])
        sectors.extend(content[k * SECTOR : (k + 1) * SECTOR].ljust(SECTOR, b"\0") for k in range(count))
        return start

    def entry(name: str, kind: int, right: int, child: int, start: int, size: int) -> bytes:
        raw = name.encode("utf-16-le") + b"\0\0"
        links = struct.pack("<HBBIII", len(raw), kind, 1, NONE, right, child)
        return raw.ljust(64, b"\0") + links + bytes(16 + 4 + 16) + struct.pack("<IQ", start, size)

    for k, (name, content) in enumerate(streams.items()):
        right = k + 2 if k + 1 < len(streams) else NONE
        entries.append(entry(name, 2, right, NONE, chain(content), len(content)))
    entries.insert(0, entry("Root Entry", 5, NONE, 1, END, 0))
    directory = chain(b"".join(entries).ljust(-(-len(entries) // 4) * SECTOR, b"\0"))
    tables = 1
    while tables * (SECTOR // 4) < len(sectors) + tables:
        tables += 1
    places = [len(sectors) + k for k in range(tables)]
    table += [FAT] * tables
    table += [FREE] * (tables * (SECTOR // 4) - len(table))
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    head += struct.pack("<IIIIIIIII", 0, tables, directory, 0, 0, END, 0, END, 0)
    head += struct.pack("<109I", *places, *[FREE] * (109 - tables))
    path.write_bytes(head + b"".join(sectors) + struct.pack(f"<{len(table)}I", *table))
    return path
