"""The image formats: those of `modeling.io_stedfm`, and Imspector's."""

from __future__ import annotations

from ..modeling.io_stedfm import (
    ImageReadError,
    SeriesInfo,
    StedImage,
    list_series,
    read_image,
    read_series,
    readable_suffixes,
    register_reader,
)
from .imspector import read_imspector

ALL_SERIES = "all"
"""Value of an option `series` that takes every series of a file."""

# The Hub's flat files know nothing of obffile.
register_reader((".msr", ".obf"), read_imspector, magic=(b"OMAS_BF\n\xff\xff",))

__all__ = [
    "ALL_SERIES",
    "ImageReadError",
    "SeriesInfo",
    "StedImage",
    "list_series",
    "read_image",
    "read_series",
    "readable_suffixes",
    "register_reader",
]
