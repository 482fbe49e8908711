"""Find the most similar places in the images of an index of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import ndimage

from stedfm_hf.discovery.index.opened import Index
from stedfm_hf.discovery.search.queries import Example
from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL

ALL_IMAGES = 64
"""Number of images up to which every one gets a map of similarities."""
NEAREST_PATCHES = 4096
"""Number of most similar patches that select the images of a larger index."""
BAND_VALUES = 2**25
"""Largest number of values of embeddings in memory at once."""

PLACE_SCHEMA = pa.schema(
    [
        ("rank", pa.int64()),
        ("score", pa.float64()),
        *OF_IMAGE,
        *((name, pa.float64()) for name in ("y_px", "x_px", "height_px", "width_px")),
        *((name, pa.float64()) for name in ("y_um", "x_um", "height_um", "width_um")),
        ("source", pa.string()),
        ("condition", pa.string()),
        *OF_MODEL,
    ]
)
"""Columns of the results of a search for places."""


@dataclass(frozen=True)
class Place:
    """Place in an image.

    Attributes:
        item: Number of the item of the index.
        score: Similarity to the query (`window_similarity`).
        box: Rectangle, in pixels of the file.
    """

    item: int
    score: float
    box: Box


def nearest_places(
    index: Index,
    query: np.ndarray,
    count: int,
    *,
    window: tuple[int, int],
    examples: Sequence[Example] = (),
    excluded: np.ndarray | None = None,
    min_distance_px: float | None = None,
) -> list[Place]:
    """Find the most similar places; places in one image do not overlap.

    A place is a rectangle of patches of the size of the query. In an index of many images, the images that hold the
    most similar patches are searched.

    Args:
        index: Index of patches.
        query: Query (D,) in the standardised space.
        count: Number of places.
        window: Height and width of a place, in patches; less in smaller images.
        examples: Examples; places that overlap their regions are excluded.
        excluded: Numbers of the items that are excluded.
        min_distance_px: Smallest distance of two places along one of the axes; by default the size of a place.

    Returns:
        Places, the most similar first.
    """
    items = _images_to_search(index, query, count, excluded)
    found: list[Place] = []
    for number in items:
        item = index.item(int(number))
        size = (item["patch_height_px"], item["patch_width_px"])
        rows, cols = (min(side, item[name]) for side, name in zip(window, ("rows", "cols"), strict=True))
        values = window_similarity(index, query, int(number), (rows, cols))
        box = Box(0, 0, rows * size[0], cols * size[1])
        for each in examples:
            if number in each.items:
                _hide(values, each.region.box, box, size)
        distance = (rows, cols)
        if min_distance_px is not None:
            distance = (max(1, round(min_distance_px / size[0])), max(1, round(min_distance_px / size[1])))
        for row, col in separate_maxima(values, count, distance):
            place = _box(row, col, (rows, cols), item)
            found.append(Place(int(number), float(values[row, col]), place))
    found.sort(key=lambda place: -place.score)
    return found[:count]


def window_similarity(index: Index, query: np.ndarray, number: int, window: tuple[int, int]) -> np.ndarray:
    """Compute the similarity of every rectangle of patches of an image to a query.

    It is the cosine of the query and the mean of the standardised embeddings of the rectangle, both without the
    correlations over the index (`Index.whitening`).

    Args:
        index: Index of patches.
        query: Query (D,) in the standardised space.
        number: Number of the item.
        window: Height and width of the rectangles, in patches.

    Returns:
        Similarities (rows - height + 1, cols - width + 1) float32, by the top left patch.
    """
    item = index.item(number)
    cols, dim = item["cols"], index.state.dim
    height, width = window
    whitened = query @ index.whitening
    unit = (whitened / np.linalg.norm(whitened)).astype(np.float32)
    step = max(1, BAND_VALUES // (cols * dim) - height)
    bands = []
    for top in range(0, item["rows"] - height + 1, step):
        bottom = min(top + step + height - 1, item["rows"])
        numbers = item["first"] + np.arange(top * cols, bottom * cols)
        z = index.standardiser(index.rows.take(numbers)).astype(np.float32).reshape(bottom - top, cols, dim)
        mean = ndimage.uniform_filter(z, size=(height, width, 1), mode="nearest")
        mean = mean[height // 2 :][: bottom - top - height + 1, width // 2 :][:, : cols - width + 1] @ index.whitening
        norms = np.linalg.norm(mean, axis=-1)
        bands.append((mean @ unit) / np.where(norms == 0, 1, norms))
    return np.concatenate(bands)


def similarity_map(index: Index, query: np.ndarray, number: int, window: tuple[int, int]) -> np.ndarray:
    """Return the similarity of the rectangle centred on every patch, (rows, cols) float32.

    Patches too close to the border have the value of the nearest rectangle inside the image.

    Args:
        index: Index of patches.
        query: Query (D,) in the standardised space.
        number: Number of the item.
        window: Height and width of the rectangles, in patches; less in smaller images.
    """
    item = index.item(number)
    sides = [min(side, item[name]) for side, name in zip(window, ("rows", "cols"), strict=True)]
    values = window_similarity(index, query, number, (sides[0], sides[1]))
    return np.pad(values, [(side // 2, side - 1 - side // 2) for side in sides], mode="edge")


def separate_maxima(values: np.ndarray, count: int, distance: tuple[int, int]) -> list[tuple[int, int]]:
    """Select the highest values that are apart by a distance along one of the axes (non-maximum suppression).

    Args:
        values: Map (rows, cols); minus infinity is never selected.
        count: Largest number of positions.
        distance: Smallest distance along the rows and along the columns.

    Returns:
        Positions (row, col), the highest value first.

    Example:
        >>> separate_maxima(np.array([[5.0, 4.0, 1.0, 3.0]]), 3, (1, 2))
        [(0, 0), (0, 3)]
    """
    left = np.array(values, np.float32)
    found = []
    for _ in range(count):
        row, col = (int(each) for each in np.unravel_index(int(left.argmax()), left.shape))
        if not np.isfinite(left[row, col]):
            break
        found.append((row, col))
        left[
            max(0, row - distance[0] + 1) : row + distance[0], max(0, col - distance[1] + 1) : col + distance[1]
        ] = -np.inf
    return found


def place_table(index: Index, places: Sequence[Place]) -> pa.Table:
    """Return the table of the results of a search for places."""
    return pa.Table.from_pylist([_record(index, k, place) for k, place in enumerate(places, 1)], schema=PLACE_SCHEMA)


def _record(index: Index, rank: int, place: Place) -> dict[str, Any]:
    """Return the row of a place in the table of results."""
    item = index.item(place.item)
    sides = {
        "y": place.box.y,
        "x": place.box.x,
        "height": place.box.height,
        "width": place.box.width,
    }
    size = item["pixel_size_nm"]
    um = (
        dict.fromkeys(sides)
        if size is None
        else {name: value * size[0 if name in ("y", "height") else 1] / 1000 for name, value in sides.items()}
    )
    return {
        **{name: item[name] for name, _ in OF_IMAGE},
        **{f"{name}_px": value for name, value in sides.items()},
        **{f"{name}_um": value for name, value in um.items()},
        "rank": rank,
        "score": place.score,
        "source": item["source"],
        "condition": index.labels[place.item],
        "model": index.manifest.model,
        "weights_sha256": index.manifest.weights_sha256,
    }


def _images_to_search(index: Index, query: np.ndarray, count: int, excluded: np.ndarray | None) -> np.ndarray:
    """Return the numbers of the images that are searched: all, or those with the most similar patches."""
    left = np.setdiff1d(np.arange(len(index)), [] if excluded is None else excluded)
    if len(left) <= max(ALL_IMAGES, 2 * count):
        return left
    mask = None if excluded is None or not len(excluded) else index.rows_of(excluded)
    rows, similarity = index.nearest(query, NEAREST_PATCHES, excluded=mask)
    items = index.item_of(rows[0][np.isfinite(similarity[0])])
    return np.array(list(dict.fromkeys(items.tolist()))[: max(ALL_IMAGES, 2 * count)])


def _hide(values: np.ndarray, region: Box, place: Box, size: tuple[float, float]) -> None:
    """Exclude the places that overlap a region."""
    rows, cols = (np.arange(count) * side for count, side in zip(values.shape, size, strict=True))
    inside_y = (rows < region.y + region.height) & (rows + place.height > region.y)
    inside_x = (cols < region.x + region.width) & (cols + place.width > region.x)
    values[np.ix_(inside_y, inside_x)] = -np.inf


def _box(row: int, col: int, window: tuple[int, int], item: dict[str, Any]) -> Box:
    """Return the rectangle of patches in pixels of the file, cut at the border of the image."""
    size = (item["patch_height_px"], item["patch_width_px"])
    y, x = row * size[0], col * size[1]
    bottom, right = min(y + window[0] * size[0], item["height"]), min(x + window[1] * size[1], item["width"])
    return Box(y, x, bottom - y, right - x)
