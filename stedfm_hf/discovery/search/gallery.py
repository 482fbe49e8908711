"""The page of a search: query, results with scores and scale bars, and how they were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stedfm_hf.discovery.index.naming import item_name
from stedfm_hf.discovery.index.opened import Index
from stedfm_hf.discovery.search.queries import Example
from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.discovery.search.thumbnails import SIZE_PX, thumbnail_uri
from stedfm_hf.images import StedImage
from stedfm_hf.reports.html import ReportFigure, Section, write_page
from stedfm_hf.runs import counted
from stedfm_hf.runs.manifest import versions

SHOWN = 60
"""Largest number of results on the page; the table has all."""


def write_gallery(
    path: Path,
    index: Index,
    likes: Sequence[Example],
    unlikes: Sequence[Example],
    results: Sequence[ReportFigure],
    *,
    noun: str,
    total: int,
    how: Mapping[str, str],
    more: Sequence[Section] = (),
) -> None:
    """Write the page of a search.

    Args:
        path: File to write.
        index: Searched index.
        likes: Examples.
        unlikes: Counter-examples.
        results: Figures of the results, the most similar first.
        noun: What the results are.
        total: Number of results in the table.
        how: More facts on the search, by name.
        more: Further sections.
    """
    manifest = index.manifest
    names = ", ".join(Path(each.name).name for each in likes)
    shown = f"The first {len(results)} of {total} are shown. " if len(results) < total else ""
    sections = [
        Section("Query" if len(likes) == 1 else "Examples", figures=[_figure(each) for each in likes], grid=True)
    ]
    if unlikes:
        sections.append(Section("Counter-examples", figures=[_figure(each) for each in unlikes], grid=True))
    text = [
        f"{shown}The score is the cosine similarity of the standardised embeddings, from -1 to 1: a rank, not a "
        "probability. Each image is scaled from its minimum to its 99.8th percentile: do not compare the brightness "
        "of two images.",
        f"To refine the result, name {noun}s that fit with --like and others with --unlike, and search again. Copy "
        "their names from below the pictures.",
    ]
    sections.append(Section(f"Most similar {noun}s", text, figures=results, grid=True))
    write_page(
        path,
        title=f"Similar to {names}" if len(names) <= 60 else f"Similar to {counted(len(likes), 'example')}",
        lead=f"{counted(total, noun)} of the index {index.folder.name} that look most like the query to the model.",
        facts={
            "images in the index": f"{len(index):,}",
            "embeddings": f"{index.count:,}",
            "search": index.state.search,
            **how,
        },
        sections=[*sections, *more],
        footer=f"Model {manifest.model}, weights {str(manifest.weights_sha256)[:12]}; index {index.folder.name}, "
        f"version {index.state.version} ({index.state.reason}); stedfm-hf {versions()['stedfm-hf']}.",
    )


def result_figure(record: Mapping[str, Any], image: StedImage | None, box: Box | None = None) -> ReportFigure:
    """Return the figure of a result.

    Args:
        record: Row of the table of results.
        image: Image, or None if its file is not found.
        box: Place in the image, which is shown with its surroundings; None shows the whole image.
    """
    rank, crop = record["rank"], None
    if box is not None:
        margin_y, margin_x = box.height, box.width
        crop = Box(box.y - margin_y, box.x - margin_x, box.height + 2 * margin_y, box.width + 2 * margin_x)
    position = f"@{box}" if box is not None else ""
    caption = f"{rank}.  {record['score']:.3f}   {item_name(record)}{position}"
    missing = "" if image is not None else ": file not found"
    alt = f"Result {rank}, {record['path']}{position}, score {record['score']:.3f}{missing}"
    return ReportFigure(thumbnail_uri(image, box=box, crop=crop), alt, caption + missing, SIZE_PX)


def _figure(example: Example) -> ReportFigure:
    box = None if example.is_whole else example.region.box
    caption = example.name if box is None or "@" in example.name else f"{example.name}@{box}"
    return ReportFigure(thumbnail_uri(example.image, box=box), f"Example {caption}", caption, SIZE_PX)
