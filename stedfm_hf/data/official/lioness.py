"""Importer of lioness: cells of living brain tissue and their boundaries, in slices of volumes.

Folders `train`, `valid` and `test`. The first two contain volumes `...img....h5` (dataset `main`, (Z, H, W)) and TIFF
stacks `...labels....tif` with a cell number per pixel. The class cell covers pixels with any number; the class
boundary covers pixels where the number changes, dilated by one pixel. `test` contains TIFF volumes with two channels:
cells in the first channel, segmented with Otsu's threshold of the whole volume, and the image in the second. Every
slice is split into crops of 224 pixels every 168 pixels; each crop is scaled by its minimum and maximum.

Source: reference protocol, except for the test volumes: the reader of the reference fails on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.filters import threshold_otsu
from skimage.morphology import disk

from stedfm_hf.data.building.cropping import CropRule, grid
from stedfm_hf.data.official.annotated import STEP, cut_crop, minmax_crop, pixels_inside, require_items
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import SUFFIXES, image, images, open_hdf5
from stedfm_hf.data.official.pixels import SIZE
from stedfm_hf.data.official.plan import SPLIT_WORDS, Item, Plan
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.modeling.io_tiff_stedfm import read_tiff
from stedfm_hf.modeling.io_types_stedfm import LazySeries

CLASSES = ("cell", "boundary")
LEVELS = 256
CORRECTIONS = (
    "The test volumes can be read: the second channel is the image, and a threshold of the first channel gives the "
    "cells, which is not an annotation. The reference fails on these volumes.",
    "A crop without contrast becomes zeros; the reference divides by zero and returns NaN.",
    "Crops at the border are moved inward, and each is stored once.",
    "An image with the same pixels in two splits is kept in the test set, or else in the validation set.",
)
SliceReader = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Function that reads the image and the cell numbers of a slice, both (H, W)."""


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of lioness.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(())
    stacks = [name for name in files.names if name.lower().endswith((".tif", ".tiff"))]
    labels = {_pair_key(name, "labels"): name for name in stacks if "labels" in _file_name(name)}
    volumes = [name for name in files.names if name.lower().endswith(SUFFIXES) and "img" in _file_name(name)]
    for name in volumes:
        if (split := _split(files, name)) is None:
            planned.skipped[name] = "not in a folder named train, valid or test"
        elif (label := labels.get(_pair_key(name, "img"), _only_labels_in_folder(labels, name))) is None:
            planned.skipped[name] = "has no TIFF stack of labels with the same name in the same folder"
        else:
            _plan_slices(planned, name, split, partial(_open_annotated, files, name, label), legacy)
    for name in stacks:
        if name in labels.values() or (split := _split(files, name)) is None:
            continue
        if legacy:
            planned.skipped[name] = "the reference fails on test volumes"
        else:
            _plan_slices(planned, name, split, partial(_open_two_channels, files, name), legacy)
    require_items(files.identity["name"], len(planned.items), planned.failed, "*img*.h5 with *labels*.tif in train")
    if not legacy and any(item.source in stacks for item in planned.items):
        planned.notes.append("the cells of the test volumes were segmented with a threshold; they are not annotations")
    return planned


def _plan_slices(
    planned: Plan, name: str, split: str, open_volume: Callable[[], Sequence[SliceReader]], legacy: bool
) -> None:
    """Add an item for each slice of a volume to the plan; a volume that cannot be opened is added to its failures."""
    with planned.reading(name):
        for number, each in enumerate(open_volume()):
            planned.items.append(Item(f"{name}#{number}", name, split, None, partial(_read, each, legacy)))


def _file_name(name: str) -> str:
    return name.rpartition("/")[2].lower()


def _pair_key(name: str, word: str) -> tuple[str, str]:
    """Return the folder and the file name without a word, which a volume and its labels share."""
    return name.rpartition("/")[0], _file_name(name).rpartition(".")[0].replace(word, "", 1)


def _only_labels_in_folder(labels: dict[tuple[str, str], str], name: str) -> str | None:
    """Return the stack of labels in the folder of a volume if there is exactly one."""
    present = [each for (folder, _), each in labels.items() if folder == name.rpartition("/")[0]]
    return present[0] if len(present) == 1 else None


def _split(files: SourceFiles, name: str) -> str | None:
    """Return the split that the innermost folder of a file names, or None."""
    words = [SPLIT_WORDS[part.lower()] for part in files.parts(name)[:-1] if part.lower() in SPLIT_WORDS]
    return words[-1] if words else None


def _series(files: SourceFiles, name: str) -> list[LazySeries]:
    """List the series of a TIFF, which stays open until the source is closed."""
    return read_tiff(files.stack.enter_context(files.local(name).open("rb")))


def _open_annotated(files: SourceFiles, name: str, label: str) -> list[SliceReader]:
    """Return a reader for each slice of a volume (HDF5) with labels (TIFF).

    Raises:
        ValueError: Volume and labels have different numbers of slices.
    """
    pixels = images(open_hdf5(files, name), "main")
    planes = [(each, channel) for each in _series(files, label) for channel in range(each.info.shape[0])]
    if len(planes) != len(pixels):
        raise ValueError(f"the volume has {len(pixels)} slices, {label} has {len(planes)}")
    return [partial(_read_annotated, pixels, row, *plane) for row, plane in enumerate(planes)]


def _read_annotated(pixels: Any, row: int, series: LazySeries, channel: int) -> tuple[np.ndarray, np.ndarray]:
    return image(pixels, row), series.load()[channel]


def _open_two_channels(files: SourceFiles, name: str) -> list[SliceReader]:
    """Return a reader for each slice of a test volume, whose cells are segmented with a threshold.

    Raises:
        ValueError: A slice does not have two channels.
    """
    series = _series(files, name)
    if any(each.info.shape[0] != 2 for each in series):
        raise ValueError(f"the slices have {series[0].info.shape[0]} channels; two are needed")
    volume = _ThresholdedVolume(tuple(series))
    return [partial(volume.slice, number) for number in range(len(series))]


@dataclass(frozen=True)
class _ThresholdedVolume:
    """Volume whose first channel is thresholded to get the cells.

    Attributes:
        series: Slices of the volume, each (2, H, W).
    """

    series: tuple[LazySeries, ...]

    @cached_property
    def threshold(self) -> float:
        """Otsu's threshold of the first channel over all slices, computed slice by slice."""
        limits = [(plane.min(), plane.max()) for plane in (each.load()[0] for each in self.series)]
        low, high = float(min(each[0] for each in limits)), float(max(each[1] for each in limits))
        if low == high:
            return high
        counts = np.zeros(LEVELS, np.int64)
        for each in self.series:
            counts += np.histogram(each.load()[0], LEVELS, (low, high))[0]
        edges = np.linspace(low, high, LEVELS + 1)
        return float(threshold_otsu(hist=(counts, (edges[1:] + edges[:-1]) / 2)))

    def slice(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the image and the cells of a slice, both (H, W)."""
        cells, pixels = self.series[number].load()
        return pixels, (cells > self.threshold).astype(np.uint8)


def boundaries(cells: np.ndarray) -> np.ndarray:
    """Return the pixels where the cell number changes, dilated by one pixel.

    Args:
        cells: (H, W) cell numbers.

    Returns:
        (H, W) bool.

    Example:
        >>> boundaries(np.array([[0, 0, 0, 5, 5, 5]])).astype(int).tolist()
        [[0, 1, 1, 1, 0, 0]]
    """
    change = np.zeros(cells.shape, bool)
    change[:-1] |= cells[1:] != cells[:-1]
    change[:, :-1] |= cells[:, 1:] != cells[:, :-1]
    dilated: np.ndarray = binary_dilation(change, disk(1))
    return dilated


def _read(read_slice: SliceReader, legacy: bool) -> list[Crop]:
    """Read a slice, compute the planes cell and boundary from its cell numbers, and cut all crops on the grid.

    Raises:
        ValueError: Image and labels differ in size.
    """
    pixels, cells = read_slice()
    if pixels.shape != cells.shape:
        raise ValueError(f"the image is {pixels.shape}, its labels are {cells.shape}")
    planes = np.stack([cells > 0, boundaries(cells)])
    rows, columns = (grid(max(length, SIZE), CropRule(SIZE, STEP)) for length in pixels.shape)
    crops = []
    for y, x in ((y, x) for y in rows for x in columns):
        crop = minmax_crop(pixels[y : y + SIZE, x : x + SIZE], legacy=legacy)
        region = None if legacy else pixels_inside(pixels.shape, y, x)
        crops.append(replace(crop, mask=cut_crop(planes, y, x), mask_planes=CLASSES, region=region, y=y, x=x))
    return crops
