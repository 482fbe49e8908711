"""synaptic-semantic-segmentation, perforated-segmentation, multidomain-detection: nanodomains of synaptic proteins.

HDF5 files `{train,valid,test}_2024-05-16.hdf5` (see `synaptic_file` for what is read of them). The masks are soft:
the share of the annotators who saw a class at a pixel, of round, elongated, perforated and multidomains.

- synaptic-semantic-segmentation: all four; crops of 224 pixels side by side, kept if any class was seen.
- perforated-segmentation: that class alone; a crop of 224 pixels at a random place of a window of 336 pixels around
  each place where someone saw it.
- multidomain-detection: a map of how densely annotators clicked on domains; crops as in the first. Clicks closer than
  3.5 pixels, three or more, are a domain, and each spreads by a Gaussian of 2 pixels.

Min-max of each crop. (Reference protocol.)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
from sklearn.cluster import DBSCAN

from stedfm_hf.data.official.annotated import corners, cut, minmax_crop, real_pixels, require_items, stretched
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import list_hdf5_files, open_hdf5
from stedfm_hf.data.official.pixels import SIZE
from stedfm_hf.data.official.plan import SEED, Item, Plan, find_split
from stedfm_hf.data.official.synaptic_file import CLASSES, Place, SynapticFile
from stedfm_hf.data.repository.layout import Crop

PERFORATED = CLASSES.index("perforated")
MULTIDOMAINS = ("multidomains",)
WINDOW = 336
NEAR, FEWEST, BANDWIDTH = 3.5, 3, 2.0
_REACH = 10
"""Pixels, five bandwidths: beyond them a click adds nothing."""
CORRECTED = (
    "Votes are what the annotators said; the reference stretches them in each crop, so that one vote in three "
    "becomes a sure mask, and divides by zero where they do not differ.",
    "Where annotated places overlap, votes are added up to 1 at most.",
    "A crop without contrast becomes zeros; the reference divides by zero and gets NaN.",
    "What lies beyond the border of an image is outside of the region of interest.",
    "The place of a crop in its window (perforated) is drawn once, by seed 42; the reference draws it at every "
    "reading, in the test as well.",
    "A click on a domain counts in its own cluster, and a map is 1 where all of a cluster fell on one point "
    "(multidomain); the reference stretches the map of each crop.",
    "An image that lies in two splits with the same pixels stays in the test set, else in validation.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool, task: str = "semantic") -> Plan:
    """Plans the import; `task` is `semantic`, `perforated` or `multidomain`."""
    found = Plan(())
    for name in list_hdf5_files(files):
        if (split := find_split(name)) is None:
            found.skipped[name] = "its name says no split (train, valid, test)"
            continue
        try:
            file = SynapticFile(open_hdf5(files, name))
            if task == "multidomain" and all(p.clicks is None for places in file.places.values() for p in places):
                raise ValueError("the metadata of its crops have no clicks")
            found.items += list(_items(file, name, split, task, legacy))
        except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
            found.failed[name] = f"cannot be read ({error}); get it again"
    require_items(files.identity["name"], len(found.items), found.failed, "train_*.hdf5 and the like")
    return found


def _items(file: SynapticFile, name: str, split: str, task: str, legacy: bool) -> Iterator[Item]:
    # The places of an image follow each other, so that it is read once.
    pasted = lru_cache(maxsize=1)(file.pasted)
    for image, places in file.places.items():
        source = f"{name}#{image}"
        if not places:
            continue
        if task == "perforated":
            for place in places:
                item = f"{source}/{place.row}"
                read = partial(_perforated, file, pasted, place, item, legacy)
                yield Item(item, source, split, None, read)
        else:
            draw = partial(density, places) if task == "multidomain" else None
            yield Item(source, source, split, None, partial(_tiles, file, pasted, image, draw, legacy))


Pasted = Callable[[str], np.ndarray]
Draw = Callable[[tuple[int, ...], bool], np.ndarray]


def _tiles(file: SynapticFile, pasted: Pasted, name: str, draw: Draw | None, legacy: bool) -> list[Crop]:
    """Crops side by side."""
    plane = file.image(name)
    planes = pasted(name) if draw is None else draw(plane.shape, legacy)
    names = CLASSES if draw is None else MULTIDOMAINS
    return [
        _crop(plane, planes, names, y, x, legacy)
        for y, x in corners(plane.shape, SIZE)
        if planes[:, y : y + SIZE, x : x + SIZE].any()
    ]


def _perforated(file: SynapticFile, pasted: Pasted, place: Place, item: str, legacy: bool) -> list[Crop]:
    """A crop at random in the window around a place."""
    votes = file.votes(place)
    if not votes[PERFORATED].any():
        return []
    plane = file.image(place.image)
    drawn = np.random.default_rng([SEED, zlib.crc32(item.encode())]).integers(0, WINDOW - SIZE, 2, endpoint=True)
    middle = place.y + votes.shape[1] // 2, place.x + votes.shape[2] // 2
    y, x = (
        # At the border of the image the crop stays in it, and the place in the crop.
        int(np.clip(centre - WINDOW // 2 + shift, 0, max(0, side - SIZE)))
        for centre, side, shift in zip(middle, plane.shape, drawn, strict=True)
    )
    planes = pasted(place.image)[PERFORATED : PERFORATED + 1]
    return [_crop(plane, planes, ("perforated",), y, x, legacy)]


def _crop(plane: np.ndarray, planes: np.ndarray, names: tuple[str, ...], y: int, x: int, legacy: bool) -> Crop:
    crop = minmax_crop(plane[y : y + SIZE, x : x + SIZE], legacy=legacy)
    votes = cut(planes, y, x)
    mask = stretched(votes) if legacy else np.clip(votes, 0, 1)
    region = None if legacy else real_pixels(plane.shape, y, x)
    return replace(crop, mask=mask.astype(np.float32), mask_planes=names, region=region, y=y, x=x)


def _domains(places: list[Place]) -> Iterator[np.ndarray]:
    """The clusters of clicks, each place for itself."""
    for place in places:
        if place.clicks is None or not len(place.clicks):
            continue
        numbers = DBSCAN(eps=NEAR, min_samples=FEWEST).fit_predict(place.clicks)
        for number in range(numbers.max() + 1):
            yield place.clicks[numbers == number]


def density(places: list[Place], shape: tuple[int, ...], legacy: bool) -> np.ndarray:
    """How densely domains were clicked on, (1, H, W) float32.

    Args:
        places: with clicks.
        shape: (H, W) of the image.
        legacy: the sum over all clicks, which the crop stretches; else the mean over the clicks of a domain, from 0 to
            1, and of several domains the greatest.

    Example:
        >>> place = Place(0, "0", 0, 0, np.array([[2.0, 3.0]] * 4))
        >>> density([place], (5, 6), False).max().item()
        1.0
    """
    whole = np.zeros(shape, np.float64)
    for clicks in _domains(places):
        low = np.maximum(np.floor(clicks.min(axis=0)).astype(int) - _REACH, 0)
        high = np.minimum(np.ceil(clicks.max(axis=0)).astype(int) + _REACH + 1, shape)
        if (high <= low).any():
            continue
        rows, columns = (np.arange(start, end) for start, end in zip(low, high, strict=True))
        y, x = clicks[:, 0, None], clicks[:, 1, None]
        bells = [np.exp(-((axis - at) ** 2) / (2 * BANDWIDTH**2)) for axis, at in ((rows, y), (columns, x))]
        total = np.einsum("nh,nw->hw", *bells)
        part = whole[low[0] : high[0], low[1] : high[1]]
        part[:] = part + total if legacy else np.maximum(part, total / len(clicks))
    return whole[None].astype(np.float32)
