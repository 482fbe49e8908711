from .folders import FoundImage, FoundImages, find_images
from .formats import (
    ALL_SERIES,
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
    "read_imspector",
    "read_series",
    "readable_suffixes",
    "register_reader",
]
