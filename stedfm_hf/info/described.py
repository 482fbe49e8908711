"""Descriptions of image files: their series and notes, or the reason why a file cannot be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from stedfm_hf.images import FoundImage, ImageReadError, SeriesInfo
from stedfm_hf.modeling.io_stedfm import describe_series, open_series
from stedfm_hf.runs import Progress


@dataclass(frozen=True)
class DescribedFile:
    """Image file with its description.

    Attributes:
        found: File.
        series: Series; () if the file cannot be read.
        format: Name of the format, such as `OME-TIFF`.
        notes: Sentences on what is assumed or left out when the file is read.
        error: Reason why the file cannot be read, or None.
    """

    found: FoundImage
    series: tuple[SeriesInfo, ...] = ()
    format: str = ""
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def rows(self) -> int:
        """Number of images with one channel, which is the number of rows of `embed`."""
        return sum(len(each.channel_names) for each in self.series)


def describe_files(files: Sequence[FoundImage], *, progress: bool) -> list[DescribedFile]:
    """Describe files without decoding their pixels (except for colour images).

    Args:
        files: Files.
        progress: Whether to show the progress.
    """
    if not progress:
        return [describe_file(each) for each in files]
    with (
        Progress(len(files), description="info", unit="files") as shown,
        ThreadPoolExecutor(min(os.cpu_count() or 1, 8), thread_name_prefix="stedfm-info") as pool,
    ):
        described = []
        for each in pool.map(describe_file, files):
            described.append(each)
            shown.update()
        return described


def describe_file(found: FoundImage) -> DescribedFile:
    """Describe a file."""
    try:
        with open_series(found.file) as stored:
            series = tuple(map(describe_series, stored))
            metadata = [each.metadata for each in stored]
    except (ImageReadError, OSError) as error:
        return DescribedFile(found, error=" ".join(str(error).split()))
    notes = dict.fromkeys(note for each in metadata for note in each.get("notes", ()))
    return DescribedFile(found, series, str(metadata[0].get("format", "")), tuple(notes))


def series_cells(series: SeriesInfo) -> tuple[str, str, str, str]:
    """Return channels, size, type and pixel size of a `SeriesInfo` as text."""
    channels, height, width = series.shape
    size = "not in the file" if series.pixel_size_nm is None else "{:.4g} x {:.4g} nm".format(*series.pixel_size_nm)
    return f"{channels}: {', '.join(series.channel_names)}", f"{height} x {width}", series.dtype, size
