"""Search an index of patches: find places, and write all files of the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.discovery.index.opened import Index
from stedfm_hf.discovery.search.gallery import SHOWN, result_figure, write_gallery
from stedfm_hf.discovery.search.place_files import (
    COLUMNS,
    write_contact_sheet,
    write_overlay,
    write_points,
    write_rois,
    write_similarity_map,
)
from stedfm_hf.discovery.search.places import Place, nearest_places, place_table, similarity_map
from stedfm_hf.discovery.search.queries import Example
from stedfm_hf.discovery.settings import SearchSettings
from stedfm_hf.images import StedImage
from stedfm_hf.runs import Progress, print_note

SHEET = 5 * COLUMNS
"""Largest number of places on the contact sheet."""
NO_ROIFILE = 'note: ROIs for Fiji are not written, because they need roifile. Run: pip install "stedfm-hf[discovery]"'


def write_places(
    index: Index,
    query: np.ndarray,
    likes: Sequence[Example],
    unlikes: Sequence[Example],
    excluded: np.ndarray,
    settings: SearchSettings,
    folder: Path,
    how: Mapping[str, str],
) -> pa.Table:
    """Find the most similar places and write the page, the contact sheet, the maps, the ROIs and the points.

    Args:
        index: Index of patches.
        query: Query (D,) in the standardised space.
        likes: Examples.
        unlikes: Counter-examples.
        excluded: Numbers of the items that are excluded as a whole.
        settings: Settings of the search.
        folder: Folder of the results.
        how: Facts on the search for the page.

    Returns:
        Table of the places.
    """
    window = likes[0].window
    places = nearest_places(
        index,
        query,
        settings.count,
        window=window,
        examples=[*likes, *unlikes],
        excluded=excluded,
        min_distance_px=settings.min_distance_px,
    )
    table = place_table(index, places)
    images = {number: index.read(number) for number in dict.fromkeys(place.item for place in places[:SHOWN])}
    write_contact_sheet(folder / "contact_sheet.png", places[:SHEET], images)
    _write_files(index, query, [*likes, *unlikes], places, images, settings.maps, folder)
    records = table.slice(0, SHOWN).to_pylist()
    figures = [
        result_figure(record, images[place.item], place.box) for record, place in zip(records, places, strict=False)
    ]
    size = {"size of a place": f"{window[0]} × {window[1]} patches"}
    write_gallery(
        folder / "gallery.html", index, likes, unlikes, figures, noun="place", total=len(table), how={**how, **size}
    )
    return table


def _write_files(
    index: Index,
    query: np.ndarray,
    examples: Sequence[Example],
    places: Sequence[Place],
    images: Mapping[int, StedImage | None],
    maps: int,
    folder: Path,
) -> None:
    """Write ROIs and points of every image, and maps and overlays of the first ones."""
    by_item: dict[int, dict[int, Place]] = {}
    for rank, place in enumerate(places, 1):
        by_item.setdefault(place.item, {})[rank] = place
    names = _file_names(index)
    has_roifile = True
    with Progress(len(by_item), description="search") as progress:
        for number, (item, ranked) in enumerate(by_item.items()):
            name = names[item]
            write_points(folder / "points" / f"{name}.csv", ranked)
            try:
                write_rois(folder / "rois" / f"{name}.zip", ranked)
            except ImportError:
                has_roifile = False
            if number < maps:
                values, columns = similarity_map(index, query, item, examples[0].window), index.item(item)
                write_similarity_map(folder / "maps" / f"{name}.similarity.tif", values, columns)
                image = images[item] if item in images else index.read(item)
                if image is not None:
                    queries = [each.region.box for each in examples if item in each.items and not each.is_whole]
                    write_overlay(folder / "maps" / f"{name}.similarity.png", image, values, columns, ranked, queries)
            progress.update()
    if not has_roifile:
        print_note(NO_ROIFILE)


def _file_names(index: Index) -> list[str]:
    """Return the start of the file names of every item: its path, numbered where a file has several."""
    paths = index.items["path"].to_pylist()
    counts, seen = Counter(paths), Counter[str]()
    names = []
    for path in paths:
        seen[path] += 1
        names.append(f"{path}.{seen[path]}" if counts[path] > 1 else path)
    return names
