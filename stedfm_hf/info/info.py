"""`stedfm info`: show what is in image files and folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..images.folders import find_images
from ..runs.errors import EXIT_DONE, EXIT_ITEMS_FAILED
from ..runs.notes import ItemNotes
from ..runs.progress import print_note
from ..runs.result import Result
from ..runs.settings import takes_settings
from ..runs.wording import escaped, text_table
from .settings import InfoSettings


@dataclass(frozen=True)
class FileInfo(Result):
    """Series of image files.

    Attributes:
        series: Series of each file that can be read.
        text: Lines for the terminal.
        failed: Number of files that cannot be read.
    """

    series: Mapping[str, Any]
    text: str
    failed: int = 0

    @property
    def exit_status(self) -> int:
        """0, or 1 if a file cannot be read."""
        return EXIT_ITEMS_FAILED if self.failed else EXIT_DONE

    def summary(self) -> str:
        """Return a line for each series, or the summary of a folder."""
        return self.text

    def to_json(self) -> list[dict[str, Any]]:
        """Return a record for each series."""
        return [{"path": path, **asdict(each)} for path, found in self.series.items() for each in found]


@takes_settings(InfoSettings)
def info(settings: InfoSettings) -> FileInfo:
    """Show series, channels, size, type and pixel size of image files; unreadable files are reported.

    Folders and globs are summarised.

    Raises:
        UserError: If an input does not exist or holds no image.
        ImageReadError: If the only file cannot be read.
    """
    from ..data.sources import is_dataset
    from ..images.formats import ImageReadError
    from .described import describe_files

    datasets = [each for each in settings.inputs if is_dataset(each)]
    inputs = [Path(each) for each in settings.inputs if each not in datasets]
    for each in datasets:
        print_note(f"note: {each}: a data set; describe it with `stedfm data stats {each}`")
    if not inputs:
        return FileInfo({}, "")
    files_only = all(each.is_file() for each in inputs)
    described = describe_files(find_images(inputs).images, progress=not files_only)
    failed = [each for each in described if each.error is not None]
    if len(described) == len(failed) == 1 and files_only:
        raise ImageReadError(failed[0].error)
    for file in failed:
        print_note(f"error: {file.error}")
    series = {
        escaped(str(each.found.file if files_only else each.found.path)): list(each.series) for each in described
    }
    if files_only:
        notes = ItemNotes()
        for file in described:
            notes.add(file.found.path, file.notes)
        notes.print()
        text = _series_table(series)
    else:
        from .folder import summarise  # imports torch

        text = summarise(inputs, described)
    if settings.thumbnails is not None:
        from .thumbnails import write_thumbnails

        write_thumbnails(settings.thumbnails, described)
        text = f"{text}\n{settings.thumbnails}"
    return FileInfo({path: found for path, found in series.items() if found}, text, len(failed))


def _series_table(series: Mapping[str, list[Any]]) -> str:
    head = ("file", "series", "channels", "height x width", "type", "pixel size (y x)")
    from .described import series_cells

    rows = [(path, each.name, *series_cells(each)) for path, found in series.items() for each in found]
    return text_table(head, rows) if rows else ""
