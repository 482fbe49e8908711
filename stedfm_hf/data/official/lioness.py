"""lioness: cells of living brain tissue and their boundaries, in slices of volumes.

Folders `train`, `valid` and `test`. In the first two, volumes `...img....h5` (data set `main`, (Z, H, W)) and TIFF
stacks `...labels....tif` with the number of the cell for every pixel: Cell is any of them, Boundary where the number
changes, one pixel wider. In `test`, TIFF volumes of two channels, of which the first tells the cells by Otsu's
threshold. Every slice, crops of 224 pixels every 168, min-max of each crop. (Reference protocol. That the second
channel of the test volumes is the image, and the threshold that of the whole volume, is ours: the reference's reader
of them fails.)
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
from stedfm_hf.data.official.annotated import STEP, cut, minmax_crop, real_pixels, require_items
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import SUFFIXES, get_images, open_hdf5, read_image
from stedfm_hf.data.official.pixels import SIZE
from stedfm_hf.data.official.plan import SPLIT_WORDS, Item, Plan
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.modeling.io_tiff_stedfm import read_tiff
from stedfm_hf.modeling.io_types_stedfm import LazySeries

CLASSES = ("cell", "boundary")
LEVELS = 256
CORRECTED = (
    "The test volumes can be read: their second channel is the image, and the first tells the cells by a threshold,"
    " which is no annotation. The reference fails at them.",
    "A crop without contrast becomes zeros; the reference divides by zero and gets NaN.",
    "Crops at the border are shifted inward, and each is there once.",
    "An image that lies in two splits with the same pixels stays in the test set, else in validation.",
)
Slice = Callable[[], tuple[np.ndarray, np.ndarray]]


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(())
    stacks = [name for name in files.names if name.lower().endswith((".tif", ".tiff"))]
    labels = {_key(name, "labels"): name for name in stacks if "labels" in _file(name)}
    volumes = [name for name in files.names if name.lower().endswith(SUFFIXES) and "img" in _file(name)]
    for name in volumes:
        if (split := _split(files, name)) is None:
            found.skipped[name] = "lies in no folder of a split (train, valid, test)"
        elif (label := labels.get(_key(name, "img"), _only(labels, name))) is None:
            found.skipped[name] = "has no TIFF stack of labels of the same name beside it"
        else:
            _add(found, name, split, partial(_annotated, files, name, label), legacy)
    for name in stacks:
        if name in labels.values() or (split := _split(files, name)) is None:
            continue
        if legacy:
            found.skipped[name] = "is a test volume, at which the reference fails"
        else:
            _add(found, name, split, partial(_thresholded, files, name), legacy)
    require_items(files.identity["name"], len(found.items), found.failed, "*img*.h5 with *labels*.tif in train")
    if not legacy and any(item.source in stacks for item in found.items):
        found.notes.append("the cells of the test volumes were told by a threshold: they are no annotation")
    return found


def _add(found: Plan, name: str, split: str, open_volume: Callable[[], Sequence[Slice]], legacy: bool) -> None:
    try:
        slices = open_volume()
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        found.failed[name] = f"cannot be read ({error}); get it again"
        return
    for number, each in enumerate(slices):
        found.items.append(Item(f"{name}#{number}", name, split, None, partial(_read, each, legacy)))


def _file(name: str) -> str:
    return name.rpartition("/")[2].lower()


def _key(name: str, word: str) -> tuple[str, str]:
    """The folder and what is left of the name: that of a volume and of its labels is the same."""
    return name.rpartition("/")[0], _file(name).rpartition(".")[0].replace(word, "", 1)


def _only(labels: dict[tuple[str, str], str], name: str) -> str | None:
    """The only stack of labels in a folder."""
    there = [each for (folder, _), each in labels.items() if folder == name.rpartition("/")[0]]
    return there[0] if len(there) == 1 else None


def _split(files: SourceFiles, name: str) -> str | None:
    words = [SPLIT_WORDS[part.lower()] for part in files.parts(name)[:-1] if part.lower() in SPLIT_WORDS]
    return words[-1] if words else None


def _series(files: SourceFiles, name: str) -> list[LazySeries]:
    return read_tiff(files.stack.enter_context(files.local_path(name).open("rb")))


def _annotated(files: SourceFiles, name: str, label: str) -> list[Slice]:
    """The slices of a volume with labels; each is read when it is asked for."""
    pixels = get_images(open_hdf5(files, name), "main")
    planes = [(each, channel) for each in _series(files, label) for channel in range(each.info.shape[0])]
    if len(planes) != len(pixels):
        raise ValueError(f"it has {len(pixels)} slices, {label} {len(planes)}")
    return [partial(_labelled, pixels, row, *plane) for row, plane in enumerate(planes)]


def _labelled(pixels: Any, row: int, series: LazySeries, channel: int) -> tuple[np.ndarray, np.ndarray]:
    return read_image(pixels, row), series.load()[channel]


def _thresholded(files: SourceFiles, name: str) -> list[Slice]:
    series = _series(files, name)
    if any(each.info.shape[0] != 2 for each in series):
        raise ValueError(f"its slices have {series[0].info.shape[0]} channels, not two")
    volume = _Cells(tuple(series))
    return [partial(volume.slice, number) for number in range(len(series))]


@dataclass(frozen=True)
class _Cells:
    """A volume whose first channel tells the cells."""

    series: tuple[LazySeries, ...]

    @cached_property
    def threshold(self) -> float:
        """Otsu's, of the first channel of all slices; they are read one after the other."""
        ends = [(plane.min(), plane.max()) for plane in (each.load()[0] for each in self.series)]
        low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
        if low == high:
            return high
        counts = np.zeros(LEVELS, np.int64)
        for each in self.series:
            counts += np.histogram(each.load()[0], LEVELS, (low, high))[0]
        edges = np.linspace(low, high, LEVELS + 1)
        return float(threshold_otsu(hist=(counts, (edges[1:] + edges[:-1]) / 2)))

    def slice(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and cells of a slice."""
        cells, pixels = self.series[number].load()
        return pixels, (cells > self.threshold).astype(np.uint8)


def boundaries(cells: np.ndarray) -> np.ndarray:
    """Where the number of the cell changes, one pixel wider, (H, W) bool.

    >>> boundaries(np.array([[0, 0, 0, 5, 5, 5]])).astype(int).tolist()
    [[0, 1, 1, 1, 0, 0]]
    """
    change = np.zeros(cells.shape, bool)
    change[:-1] |= cells[1:] != cells[:-1]
    change[:, :-1] |= cells[:, 1:] != cells[:, :-1]
    wider: np.ndarray = binary_dilation(change, disk(1))
    return wider


def _read(read: Slice, legacy: bool) -> list[Crop]:
    pixels, cells = read()
    if pixels.shape != cells.shape:
        raise ValueError(f"is {pixels.shape}, its labels {cells.shape}")
    planes = np.stack([cells > 0, boundaries(cells)])
    rows, columns = (grid(max(side, SIZE), CropRule(SIZE, STEP)) for side in pixels.shape)
    crops = []
    for y, x in ((y, x) for y in rows for x in columns):
        crop = minmax_crop(pixels[y : y + SIZE, x : x + SIZE], legacy=legacy)
        region = None if legacy else real_pixels(pixels.shape, y, x)
        crops.append(replace(crop, mask=cut(planes, y, x), mask_planes=CLASSES, region=region, y=y, x=x))
    return crops
