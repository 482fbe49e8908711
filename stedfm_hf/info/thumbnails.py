"""Page of thumbnails: what the images of a folder look like."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.figure import Figure

from stedfm_hf.images import ImageReadError, StedImage
from stedfm_hf.images.regions import read_large
from stedfm_hf.info.described import DescribedFile
from stedfm_hf.reports.figures import png_uri, show_image, style
from stedfm_hf.reports.html import ReportFigure, Section, Table, write_page
from stedfm_hf.runs import Progress

SIZE = 256
"""Largest height and width of a thumbnail, in pixels of the image that are shown."""
MOST_PLANES = 12
"""Largest number of thumbnails of a file."""


def write_thumbnails(path: Path, described: Sequence[DescribedFile]) -> Path:
    """Write a page with a thumbnail of every channel and series, at most `MOST_PLANES` for each file.

    Args:
        path: HTML file to write.
        described: Files to show.
    """
    folders: dict[str, list[ReportFigure]] = {}
    failed: list[tuple[str, str]] = []
    with Progress(len(described), description="thumbnails", unit="files") as progress:
        for each in described:
            try:
                figures = _thumbnails(each)
                folders.setdefault(str(PurePosixPath(each.found.path).parent), []).extend(figures)
            except (ImageReadError, OSError) as error:
                failed.append((each.found.path, " ".join(str(error).split())))
            progress.update()
    sections = [
        Section("top folder" if folder == "." else folder, figures=figures, grid=True)
        for folder, figures in sorted(folders.items())
    ]
    if failed:
        sections.append(Section("Not readable", table=Table(("file", "reason"), failed)))
    return write_page(
        path,
        title="Images",
        lead="Each thumbnail is scaled from its minimum to its 99.8th percentile: do not compare the brightness "
        "of two thumbnails.",
        facts={
            "files": str(len(described) - len(failed)),
            "images": str(sum(each.rows for each in described)),
            "not readable": str(len(failed)),
        },
        sections=sections,
    )


def _thumbnails(described: DescribedFile) -> list[ReportFigure]:
    """Return the thumbnails of the first series and channels of a file.

    Raises:
        ImageReadError: If the file cannot be read.
    """
    if described.error is not None:
        raise ImageReadError(described.error)
    figures = list[ReportFigure]()
    name = PurePosixPath(described.found.path).name
    for image in read_large(described.found.file):
        for channel in range(len(image.channel_names)):
            if len(figures) == MOST_PLANES:
                return figures
            more = f" ({MOST_PLANES} of {described.rows} shown)" if described.rows > MOST_PLANES else ""
            figures.append(_thumbnail(image, channel, name + more))
    return figures


def _thumbnail(image: StedImage, channel: int, file_name: str) -> ReportFigure:
    """Return the thumbnail of a channel, with a scale bar if the pixel size is known."""
    height, width = image.array.shape[1:]
    step = max(1, -(-max(height, width) // SIZE))
    one = image.array[channel : channel + 1]
    rows = [one[:, top : top + 1, ::step][0] for top in range(0, height, step)]
    plane = np.ma.masked_invalid(np.concatenate(rows).astype(np.float64))
    size = image.pixel_size_nm
    with style():
        figure = Figure(figsize=(2.2, 2.2 * plane.shape[0] / plane.shape[1]), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        limits = (0.0, 1.0) if not plane.count() else None
        show_image(axes, plane, limits=limits, pixel_size_nm=None if size is None else size[1] * step)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    parts = [file_name]
    parts += [image.series] if image.series != "image" else []
    parts += [f"channel {image.channel_names[channel]}"] if len(image.channel_names) > 1 else []
    pixel_size = "no pixel size" if size is None else f"{size[0]:.4g} x {size[1]:.4g} nm"
    caption = f"{', '.join(parts)}: {height} x {width}, {image.array.dtype}, {pixel_size}"
    return ReportFigure(png_uri(content.getvalue()), ", ".join(parts), caption, 220)
