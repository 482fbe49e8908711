"""Read the OME-XML header of a TIFF file: names, pixel sizes, and the channels that the file holds.

A header that cannot be parsed costs the metadata, never the pixels; notes say what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from .io_types_stedfm import MAX_PLANES, ImageReadError, one_line, pixel_size, unit_in_nm

NOT_XML = "the OME header is not valid XML: pixel size and channel names are unknown"
NO_NUMBER = "the OME header has a pixel size that is not a number: the pixel size is unknown"


@dataclass(frozen=True)
class OmeImage:
    """Image of an OME header.

    Attributes:
        name: Name, or "".
        pixel_size_nm: Pixel size (y, x) in nm, or None.
        channel_names: Names of the channels that the file holds; () if one has no name.
    """

    name: str
    pixel_size_nm: tuple[float, float] | None
    channel_names: tuple[str, ...]


def read_ome(header: str, file_name: str) -> tuple[list[OmeImage], list[str]]:
    """Read the images of an OME header.

    Args:
        header: XML text.
        file_name: Name of the file; a header may describe several files.

    Returns:
        Images, and notes on parts of the header that cannot be read.

    Raises:
        ImageReadError: If the header declares an impossible number of planes.

    Example:
        >>> read_ome('<OME><Image Name="cell"><Pixels PhysicalSizeX="0,02"/></Image></OME>', "a.tif")[1]
        ['the OME header has a pixel size that is not a number: the pixel size is unknown']
    """
    try:
        root = ElementTree.fromstring(header)
    except ElementTree.ParseError:
        return [], [NOT_XML]
    images, notes = list[OmeImage](), list[str]()
    for image in root.iterfind("{*}Image"):
        for pixels in image.iterfind("{*}Pixels"):
            _check_plane_count(pixels)
            try:
                size = _physical_size(pixels)
            except ValueError:
                size, notes = None, [NO_NUMBER]
            names = _channel_names(pixels, file_name, root.get("UUID"))
            images.append(OmeImage(image.get("Name", ""), size, names))
    return images, notes


def _check_plane_count(pixels: ElementTree.Element) -> None:
    counts = [math.prod(_whole(pixels.get(f"Size{axis}"), 1) for axis in "TZC")]
    for data in pixels.iterfind("{*}TiffData"):
        counts += [_whole(data.get(key), 0) for key in ("PlaneCount", "NumPlanes", "IFD")]
    if max(counts) > MAX_PLANES:
        raise ImageReadError(f"its OME header declares {max(counts)} planes; export it again")


def _whole(text: str | None, default: int) -> int:
    """Return a whole number, or a default for a missing or faulty one."""
    return int(text) if text is not None and text.strip().isdecimal() else default


def _physical_size(pixels: ElementTree.Element) -> tuple[float, float] | None:
    """Return the pixel size (y, x) in nm; each axis has its own unit, µm by default.

    Raises:
        ValueError: If a size is not a number.
    """
    sizes = []
    for axis in "YX":
        text = pixels.get(f"PhysicalSize{axis}")
        unit = unit_in_nm(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(None if text is None or unit is None else float(text) * unit)
    return pixel_size(*sizes)


def _channel_names(pixels: ElementTree.Element, file_name: str, file_id: str | None) -> tuple[str, ...]:
    """Return the names of the channels whose planes are in this file; () if one has no name."""
    channels = list(pixels.iterfind("{*}Channel"))
    samples = [_whole(channel.get("SamplesPerPixel"), 1) for channel in channels]
    names = [one_line(channel.get("Name", "")) for channel in channels]
    numbers = range(len(names))
    in_file = _channels_in_file(pixels, len(names), file_name, file_id)
    kept = [names[number] for number in numbers if number in in_file]
    return tuple(kept) if all(kept) and set(samples) <= {1} else ()


def _channels_in_file(
    pixels: ElementTree.Element, channels: int, file_name: str, file_id: str | None
) -> Sequence[int] | set[int]:
    """Return the numbers of the channels in this file; all if the header does not assign planes to files."""
    order = pixels.get("DimensionOrder", "XYZCT")[2:]
    lengths = {axis: _whole(pixels.get(f"Size{axis}"), 1) for axis in "ZCT"}
    found, files = set[int](), set[str]()
    for data in pixels.iterfind("{*}TiffData"):
        uuid = data.find("{*}UUID")
        if uuid is None:
            return range(channels)
        files.add(uuid.get("FileName") or (uuid.text or ""))
        if uuid.get("FileName") != file_name and (file_id is None or uuid.text != file_id):
            continue
        first = [min(_whole(data.get(f"First{axis}"), 0), lengths[axis] - 1) for axis in order]
        place, step = 0, 1
        for axis, index in zip(order, first, strict=True):
            place, step = place + index * step, step * lengths[axis]
        channel_step = math.prod(lengths[axis] for axis in order[: order.index("C")])
        default = 1 if data.get("IFD") is not None else step
        for plane in range(place, min(place + _whole(data.get("PlaneCount"), default), step)):
            found.add(plane // channel_step % lengths["C"])
            if len(found) == lengths["C"]:
                break
    return found if found and len(files) > 1 else range(channels)
