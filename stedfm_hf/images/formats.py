"""Readers of all image formats: those of `modeling.io_stedfm`, and Imspector."""

from __future__ import annotations

from ..modeling.io_stedfm import (
    ImageReadError,
    OpenImage,
    SeriesInfo,
    StedImage,
    list_series,
    open_image,
    read_image,
    read_series,
    readable_suffixes,
    register_reader,
)
from .imspector import read_imspector

ALL_SERIES = "all"
"""Value of the option `series` that reads every series of a file."""

# Files in Hub repositories do not depend on obffile.
register_reader((".msr", ".obf"), read_imspector, magic=(b"OMAS_BF\n\xff\xff",))

__all__ = [
    "ALL_SERIES",
    "ImageReadError",
    "OpenImage",
    "SeriesInfo",
    "StedImage",
    "list_series",
    "open_image",
    "read_image",
    "read_series",
    "readable_suffixes",
    "register_reader",
]
