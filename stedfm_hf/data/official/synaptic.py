"""Importer of three sets of nanodomains of synaptic proteins.

HDF5 files `{train,valid,test}_2024-05-16.hdf5` (layout: `synaptic_file`). Masks are soft: the fraction of annotators
who marked a class at a pixel; the classes are round, elongated, perforated and multidomains. Each crop is scaled by
its minimum and maximum.

- synaptic-semantic-segmentation: all four classes; adjacent crops of 224 pixels, kept if any class is marked.
- perforated-segmentation: only this class; one crop of 224 pixels at a random position in a window of 336 pixels
  around each annotated crop in which it is marked.
- multidomain-detection: a density map of the annotators' clicks on domains; crops as in the first set. Three or more
  clicks closer than 3.5 pixels form a domain; each click contributes a Gaussian with a standard deviation of 2 pixels.

Source: reference protocol.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
from sklearn.cluster import DBSCAN

from stedfm_hf.data.official.annotated import (
    corners,
    cut_crop,
    minmax_crop,
    pixels_inside,
    require_items,
    rescaled_votes,
)
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import hdf5_names, open_hdf5
from stedfm_hf.data.official.pixels import SIZE
from stedfm_hf.data.official.plan import SEED, Item, Plan, split_in
from stedfm_hf.data.official.synaptic_file import CLASSES, Annotation, SynapticFile
from stedfm_hf.data.repository.layout import Crop

PERFORATED = CLASSES.index("perforated")
MULTIDOMAINS = ("multidomains",)
WINDOW = 336
NEAR, FEWEST, BANDWIDTH = 3.5, 3, 2.0
_REACH = 10
"""Radius in which a click contributes, in pixels: five bandwidths."""
CORRECTIONS = (
    "Votes are the fractions of annotators; the reference rescales them in each crop, so that one vote in three "
    "becomes a certain mask, and divides by zero if all votes are equal.",
    "Where annotated crops overlap, votes are summed and clipped to 1.",
    "A crop without contrast becomes zeros; the reference divides by zero and gets NaN.",
    "Pixels beyond the border of an image are outside the region of interest.",
    "The position of a crop in its window (perforated) is sampled once, with seed 42; the reference samples it at "
    "every reading, in the test set as well.",
    "Each click on a domain counts only in its cluster, and a map is 1 where all clicks of a cluster coincide "
    "(multidomain); the reference rescales the map of each crop.",
    "An image with the same pixels in two splits is kept in the test set, or else in the validation set.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool, task: str = "semantic") -> Plan:
    """Plan the import of a set of synaptic nanodomains.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.
        task: `semantic`, `perforated` or `multidomain`.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(())
    for name in hdf5_names(files):
        if (split := split_in(name)) is None:
            planned.skipped[name] = "the file name contains no split (train, valid, test)"
            continue
        with planned.reading(name):
            file = SynapticFile(open_hdf5(files, name))
            if task == "multidomain" and all(
                each.clicks is None for annotations in file.annotations.values() for each in annotations
            ):
                raise ValueError("the metadata of its crops have no clicks")
            planned.items += list(_items(file, name, split, task, legacy))
    require_items(files.identity["name"], len(planned.items), planned.failed, "train_*.hdf5 and the like")
    return planned


def _items(file: SynapticFile, name: str, split: str, task: str, legacy: bool) -> Iterator[Item]:
    """Yield the items of a file: one for each annotated crop (perforated), else one for each annotated image."""
    # The crops of an image are consecutive, so that it is read once.
    vote_maps = lru_cache(maxsize=1)(file.vote_maps)
    for image, crops in file.annotations.items():
        source = f"{name}#{image}"
        if not crops:
            continue
        if task == "perforated":
            for annotation in crops:
                item = f"{source}/{annotation.row}"
                read = partial(_perforated, file, vote_maps, annotation, item, legacy)
                yield Item(item, source, split, None, read)
        else:
            density_map = partial(density, crops) if task == "multidomain" else None
            yield Item(source, source, split, None, partial(_tiles, file, vote_maps, image, density_map, legacy))


VoteMaps = Callable[[str], np.ndarray]
DensityMap = Callable[[tuple[int, ...], bool], np.ndarray]


def _tiles(
    file: SynapticFile, vote_maps: VoteMaps, name: str, density_map: DensityMap | None, legacy: bool
) -> list[Crop]:
    """Return the adjacent crops of an image in which a class is marked.

    Masks are the votes of all classes, or, if `density_map` is not None, the density of domains.
    """
    plane = file.image(name)
    planes = vote_maps(name) if density_map is None else density_map(plane.shape, legacy)
    names = CLASSES if density_map is None else MULTIDOMAINS
    return [
        _crop(plane, planes, names, y, x, legacy)
        for y, x in corners(plane.shape, SIZE)
        if planes[:, y : y + SIZE, x : x + SIZE].any()
    ]


def _perforated(
    file: SynapticFile, vote_maps: VoteMaps, annotation: Annotation, item: str, legacy: bool
) -> list[Crop]:
    """Return one crop at a random position in the window around an annotated crop; none if the class is not marked.

    The name of the item seeds the position, which therefore does not depend on other items.
    """
    votes = file.votes(annotation)
    if not votes[PERFORATED].any():
        return []
    plane = file.image(annotation.image)
    shifts = np.random.default_rng([SEED, zlib.crc32(item.encode())]).integers(0, WINDOW - SIZE, 2, endpoint=True)
    middle = annotation.y + votes.shape[1] // 2, annotation.x + votes.shape[2] // 2
    y, x = (
        # At the border the crop is moved into the image; it still contains the annotated crop.
        int(np.clip(centre - WINDOW // 2 + shift, 0, max(0, length - SIZE)))
        for centre, length, shift in zip(middle, plane.shape, shifts, strict=True)
    )
    planes = vote_maps(annotation.image)[PERFORATED : PERFORATED + 1]
    return [_crop(plane, planes, ("perforated",), y, x, legacy)]


def _crop(plane: np.ndarray, planes: np.ndarray, names: tuple[str, ...], y: int, x: int, legacy: bool) -> Crop:
    """Cut a crop with its mask from an image (H, W) and its planes of votes (P, H, W), padded with zeros."""
    crop = minmax_crop(plane[y : y + SIZE, x : x + SIZE], legacy=legacy)
    votes = cut_crop(planes, y, x)
    mask = rescaled_votes(votes) if legacy else np.clip(votes, 0, 1)
    region = None if legacy else pixels_inside(plane.shape, y, x)
    return replace(crop, mask=mask.astype(np.float32), mask_planes=names, region=region, y=y, x=x)


def _domains(annotations: list[Annotation]) -> Iterator[np.ndarray]:
    """Yield the clicks of each domain, (n, 2) points y, x in the image; clicks outside domains are dropped."""
    for annotation in annotations:
        if annotation.clicks is None or not len(annotation.clicks):
            continue
        numbers = DBSCAN(eps=NEAR, min_samples=FEWEST).fit_predict(annotation.clicks)
        for number in range(numbers.max() + 1):  # the number -1 means no domain
            yield annotation.clicks[numbers == number]


def density(annotations: list[Annotation], shape: tuple[int, ...], legacy: bool) -> np.ndarray:
    """Compute the density map of clicks on domains.

    Args:
        annotations: Annotated crops of one image; those without clicks are ignored.
        shape: (H, W) of the image.
        legacy: Sum over all clicks. By default, the value is the mean over the clicks of a domain, and the largest
            mean where domains overlap.

    Returns:
        (1, H, W) float32; in [0, 1] unless `legacy`.

    Example:
        >>> annotation = Annotation(0, "0", 0, 0, np.array([[2.0, 3.0]] * 4))
        >>> density([annotation], (5, 6), False).max().item()
        1.0
    """
    whole = np.zeros(shape, np.float64)
    for clicks in _domains(annotations):
        low = np.maximum(np.floor(clicks.min(axis=0)).astype(int) - _REACH, 0)
        high = np.minimum(np.ceil(clicks.max(axis=0)).astype(int) + _REACH + 1, shape)
        if (high <= low).any():
            continue
        rows, columns = (np.arange(start, end) for start, end in zip(low, high, strict=True))
        y, x = clicks[:, 0, None], clicks[:, 1, None]
        # A Gaussian in two dimensions is the product of one along each axis.
        gaussians = [np.exp(-((axis - at) ** 2) / (2 * BANDWIDTH**2)) for axis, at in ((rows, y), (columns, x))]
        total = np.einsum("nh,nw->hw", *gaussians)
        part = whole[low[0] : high[0], low[1] : high[1]]
        part[:] = part + total if legacy else np.maximum(part, total / len(clicks))
    return whole[None].astype(np.float32)
