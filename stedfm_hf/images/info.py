"""`stedfm info`: list the series of image files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..runs.errors import EXIT_DONE, EXIT_ITEMS_FAILED
from ..runs.progress import print_note
from ..runs.result import Result
from ..runs.settings import takes_settings
from ..runs.wording import escaped, text_table
from .formats import ImageReadError, SeriesInfo, list_series
from .settings import InfoSettings


@dataclass(frozen=True)
class FileInfo(Result):
    """Series of image files.

    Attributes:
        series: Series of each file that can be read.
        failed: Number of files that cannot be read.
    """

    series: Mapping[str, list[SeriesInfo]]
    failed: int = 0

    @property
    def exit_status(self) -> int:
        """0, or 1 if a file cannot be read."""
        return EXIT_ITEMS_FAILED if self.failed else EXIT_DONE

    def summary(self) -> str:
        """Return a table with a line for each series."""
        head = ("file", "series", "channels", "height x width", "type", "pixel size (y x)")
        rows = [(path, *_cells(each)) for path, found in self.series.items() for each in found]
        return text_table(head, rows) if rows else ""

    def to_json(self) -> list[dict[str, Any]]:
        """Return a record for each series."""
        return [{"path": path, **asdict(each)} for path, found in self.series.items() for each in found]


@takes_settings(InfoSettings)
def info(settings: InfoSettings) -> FileInfo:
    """List the series of image files; unreadable files are reported.

    Raises:
        ImageReadError: If the only file cannot be read.
    """
    series, failed = dict[str, list[SeriesInfo]](), 0
    for path in settings.files:
        try:
            series[escaped(str(path))] = list_series(path)
        except (ImageReadError, OSError) as error:
            if len(settings.files) == 1:
                raise
            failed += 1
            print_note(f"error: {' '.join(str(error).split())}")
    return FileInfo(series, failed)


def _cells(series: SeriesInfo) -> tuple[str, ...]:
    """Return the cells of a row of the table, without the file."""
    channels, height, width = series.shape
    size = "not in the file" if series.pixel_size_nm is None else "{:.4g} x {:.4g} nm".format(*series.pixel_size_nm)
    return series.name, f"{channels}: {', '.join(series.channel_names)}", f"{height} x {width}", series.dtype, size
