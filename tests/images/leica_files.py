"""Leica files, written byte by byte as the description of LIF version 2 and LOF has it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

AXES = {"X": 1, "Y": 2, "Z": 3, "T": 4, "L": 5, "E": 9, "M": 10}
METRES = {"X": 1e-8, "Y": 2e-8, "Z": 1e-7, "L": 5e-9, "E": 5e-9}  # distance of two elements


@dataclass
class Image:
    """An image of a file: an array with the names of its axes (C and S: channels), stored in this order."""

    array: np.ndarray
    axes: str
    name: str = "Series001"
    luts: Sequence[str] = ("Green", "Red", "Gray", "Blue")
    dyes: Sequence[str] = ()
    cut: int = 0  # bytes of pixels that are left out


def channel(image: Image, k: int, offset: int, tag: int) -> str:
    """The XML element of a channel."""
    kind, bits = int(image.array.dtype.kind == "f"), image.array.itemsize * 8
    dye = f"<ChannelProperty><Key>DyeName</Key><Value>{image.dyes[k]}</Value></ChannelProperty>" if image.dyes else ""
    return (
        f'<ChannelDescription DataType="{kind}" ChannelTag="{tag}" Resolution="{bits}" LUTName="{image.luts[k]}"'
        f' BytesInc="{offset}" NameOfMeasuredQuantity="" Min="0" Max="255" Unit="" IsLUTInverted="0" BitInc="0">'
        f"{dye}</ChannelDescription>"
    )


def element(image: Image, block: str, memory: str = "") -> str:
    """The XML element of an image."""
    dimensions, channels = "", ""
    for axis, length, step in zip(image.axes, image.array.shape, image.array.strides, strict=True):
        if axis in "CS":
            channels = "".join(channel(image, k, k * step, (k + 1) * (axis == "S")) for k in range(length))
            continue
        extent, unit = METRES.get(axis, 1.0) * (length - 1), "m" if axis in METRES else "s"
        dimensions += (
            f'<DimensionDescription DimID="{AXES[axis]}" NumberOfElements="{length}" Origin="5e-07"'
            f' Length="{extent}" Unit="{unit}" BitInc="0" BytesInc="{step}"/>'
        )
    memory = memory or f'<Memory Size="{image.array.nbytes}" MemoryBlockID="{block}"/>'
    return (
        f"<Element Name={quoteattr(image.name)}><Data><Image><ImageDescription>"
        f"<Channels>{channels or channel(image, 0, 0, 0)}</Channels><Dimensions>{dimensions}</Dimensions>"
        f"</ImageDescription></Image></Data>{memory}</Element>"
    )


def write_lif(path: Path, *images: Image, declaration: str = "", version: int = 2) -> Path:
    """Write a LIF file with images."""
    elements = "".join(element(image, f"MemBlock_{k}") for k, image in enumerate(images))
    xml = (
        f'{declaration}<LMSDataContainerHeader Version="{version}"><Element Name="project"><Children>'
        f"{elements}</Children></Element></LMSDataContainerHeader>"
    )
    content = struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)) + xml.encode("utf-16-le")
    for k, image in enumerate(images):
        block, pixels = f"MemBlock_{k}".encode("utf-16-le"), image.array.tobytes()
        head = struct.pack("<IIBQBI", 0x70, len(block) + 14, 0x2A, len(pixels), 0x2A, len(block) // 2)
        content += head + block + pixels[: len(pixels) - image.cut]
    path.write_bytes(content)
    return path


def write_lof(path: Path, image: Image) -> Path:
    """Write a LOF file with one image."""
    name, pixels = "LMS_Object_File", image.array.tobytes()
    xml = f'<LMSDataContainerHeader Version="2">{element(image, "MemBlock_0")}</LMSDataContainerHeader>'
    content = struct.pack("<IIBI", 0x70, 2 * len(name) + 5, 0x2A, len(name)) + name.encode("utf-16-le")
    content += struct.pack("<BIBI", 0x2A, 2, 0x2A, 0) + struct.pack("<BQ", 0x2A, len(pixels)) + pixels
    content += struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)) + xml.encode("utf-16-le")
    path.write_bytes(content)
    return path


def write_xlif(path: Path, image: Image, files: Sequence[tuple[str, int]], kind: str = "Frame") -> Path:
    """Write an XLIF file whose pixels are in other files: their names and sizes in bytes, in order."""
    offset, blocks = 0, ""
    for name, size in files:
        blocks += f'<{kind} File="{name}" Offset="{offset}" Size="{size}" UUID=""/>'
        offset += size
    memory = f'<Memory Size="{image.array.nbytes}" MemoryBlockID="MemBlock_0">{blocks}</Memory>'
    inner = element(image, "", memory)
    path.write_text(f'<?xml version="1.0"?><LMSDataContainerHeader Version="2">{inner}</LMSDataContainerHeader>')
    return path
