"""Readers of all image formats: those of `modeling.io_stedfm`, and those of the instruments' own files."""

from __future__ import annotations

from ..modeling.io_stedfm import (
    ImageReadError,
    OpenImage,
    SeriesInfo,
    StedImage,
    is_image_folder,
    list_series,
    open_image,
    read_image,
    read_series,
    readable_suffixes,
    register_opener,
    register_path_reader,
    register_reader,
)
from .imspector import read_imspector
from .leica import read_leica
from .lsm import read_lsm
from .nikon import read_nikon
from .olympus import OIB, read_olympus
from .ome_zarr import MEMBERS, read_ome_zarr
from .remote import open_remote
from .zeiss import read_zeiss

ALL_SERIES = "all"
"""Value of the option `series` that reads every series of a file."""

# Files in Hub repositories do not depend on the libraries of these formats.
register_reader((".msr", ".obf"), read_imspector, magic=(b"OMAS_BF\n\xff\xff",))
register_reader((".lsm",), read_lsm, magic=(b"II*\0", b"II+\0"))
register_path_reader((".lif", ".lof", ".xlif"), read_leica, magic=(b"\x70\x00\x00\x00",))
register_path_reader((".czi",), read_zeiss, magic=(b"ZISRAWFILE\0",))
register_path_reader((".nd2",), read_nikon, magic=(b"\xda\xce\xbe\x0a", b"\0\0\0\x0cjP  "))
register_path_reader((".oib", ".oif"), read_olympus, magic=(OIB,))
register_opener(open_remote)
register_path_reader((".zarr",), read_ome_zarr, members=MEMBERS)

__all__ = [
    "ALL_SERIES",
    "ImageReadError",
    "OpenImage",
    "SeriesInfo",
    "StedImage",
    "is_image_folder",
    "list_series",
    "open_image",
    "read_image",
    "read_series",
    "readable_suffixes",
    "register_path_reader",
    "register_reader",
]
