"""Images from files and folders: the formats of `modeling.io_stedfm`, Imspector's, and the walk over inputs."""

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
from .folders import FoundImage, FoundImages, find_images
from .imspector import read_imspector

ALL_SERIES = "all"
"""Value of an option `series` that takes every series of a file."""

# Importing this room is what adds the format: the Hub's flat files know nothing of obffile.
register_reader((".msr", ".obf"), read_imspector, magic=(b"OMAS_BF\n\xff\xff",))

__all__ = [
    "ALL_SERIES",
    "FoundImage",
    "FoundImages",
    "ImageReadError",
    "SeriesInfo",
    "StedImage",
    "find_images",
    "list_series",
    "read_image",
    "read_series",
    "readable_suffixes",
    "register_reader",
]
