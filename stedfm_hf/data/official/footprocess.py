"""footprocess: foot processes and slit diaphragms of the kidney, a class for each pixel.

TIFF files `images/*.tif` with masks `labels/*_bin.tif` of the same name, lists `training.txt` and `validation.txt`,
and the same in a folder `test`. The first channel, brought to 22.7 nm by the pixel size of the file; crops of 224
pixels every 168 that lie in the image as a whole, kept if anything is annotated, min-max of each crop; smaller images
are mirrored. The two greatest values of the masks are the classes FP and SD. Without lists 80 to 20 by seed 42.
(Reference protocol; which of the values is FP: the smaller one, as the reference orders them.)
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from stedfm_hf.data.official.annotated import STEP, inner_corners, minmax_crop, require_items
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.pixels import SIZE, read_plane
from stedfm_hf.data.official.plan import Item, Plan, list_tiff_files, random_splits, read_split_lists
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.modeling.image_processing_stedfm import resample
from stedfm_hf.modeling.io_tiff_stedfm import read_tiff

CLASSES = ("FP", "SD")
PIXEL_NM = 22.724609375
CORRECTED = (
    "Which value of a mask is which class is decided by all masks together; the reference decides it in each image,"
    " so that one with a single class may be taken for the other.",
    "A crop without contrast becomes zeros; the reference divides by zero and gets NaN.",
    "An image that lies in two splits stays in the test set, else in validation.",
)
_END = "_bin"


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan((), mask_names={0: "background", **dict(enumerate(CLASSES, start=1))})
    names = list_tiff_files(files)
    labels = {_key(files, name): name for name in names if _stem(name).endswith(_END)}
    images = [name for name in names if not _stem(name).endswith(_END)]
    pairs = [(name, "test") for name in images if _is_test(files, name)]
    listed = read_split_lists(files, "footprocess", found)
    if listed is None:
        listed = random_splits(
            [name for name in images if not _is_test(files, name)], {"train": 0.8, "validation": 0.2}
        )
        found.notes.append("the source has no lists of files: splits are made by the rule that the lists were made by")
    pairs += [(name, split) for name, split in listed if (name, split) not in pairs]
    values = {}
    for name, _ in pairs:
        if (label := labels.get(_key(files, name))) is None:
            found.skipped[name] = f"has no mask: there is no {_stem(name)}{_END}.tif"
            continue
        try:
            values[name] = _greatest(read_plane(files.read(label), 0))
        except Exception as error:  # damaged bytes raise anything; the others go on
            found.failed[label] = f"cannot be read ({error or type(error).__name__}); get it again"
    common = Counter(each for each in values.values() if len(each) == 2).most_common(1)
    for name, split in pairs:
        if name not in values:
            continue
        numbers = values[name] if legacy or not common else common[0][0]
        if not legacy and (not common or not set(values[name]) <= set(numbers)):
            known = f"the other masks hold {numbers}" if common else "no mask holds both classes"
            found.failed[name] = f"its mask holds {values[name]}, and {known}: the classes cannot be told"
            continue
        label = labels[_key(files, name)]
        found.items.append(Item(name, name, split, None, partial(_read, files, name, label, numbers, legacy)))
    require_items(files.identity["name"], len(found.items), found.failed, "images/*.tif with labels/*_bin.tif")
    if not legacy:
        found.keep_sources_in_one_split()
    return found


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _is_test(files: SourceFiles, name: str) -> bool:
    return "test" in files.parts(name)[:-1]


def _key(files: SourceFiles, name: str) -> tuple[bool, str]:
    return _is_test(files, name), _stem(name).removesuffix(_END)


def _greatest(mask: np.ndarray) -> tuple[int, ...]:
    """The two greatest values but 0, the smaller first."""
    return tuple(int(value) for value in np.unique(mask) if value > 0)[-2:]


def _read(files: SourceFiles, name: str, label: str, values: tuple[int, ...], legacy: bool) -> list[Crop]:
    series = read_tiff(io.BytesIO(files.read(name)))[0]
    plane, mask = series.load()[0], read_plane(files.read(label), 0)
    if mask.shape != plane.shape:
        raise ValueError(f"is {plane.shape}, its mask {mask.shape}")
    if series.info.pixel_size_nm is None:
        raise ValueError("does not say its pixel size, which the set is scaled by; set it in ImageJ")
    numbers = np.zeros(mask.shape, np.uint8)
    for number, value in enumerate(values, start=1):
        numbers[mask == value] = number
    height, width = series.info.pixel_size_nm
    factors = height / PIXEL_NM, width / PIXEL_NM
    plane = resample(plane[None].astype(np.float32), factors)[0]
    numbers = _mirrored(_nearest(numbers, plane.shape))
    plane = _mirrored(plane)
    crops = []
    for y, x in inner_corners(plane.shape, STEP):
        place = slice(y, y + SIZE), slice(x, x + SIZE)
        if numbers[place].any():
            crop = minmax_crop(plane[place], legacy=legacy)
            crops.append(replace(crop, mask=numbers[place], y=y, x=x, pixel_size_nm=(PIXEL_NM, PIXEL_NM)))
    return crops


def _nearest(numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of classes in another size."""
    if numbers.shape == shape:
        return numbers
    planes = torch.from_numpy(numbers.astype(np.float32))[None, None]
    resized: np.ndarray = torch.nn.functional.interpolate(planes, size=shape, mode="nearest-exact")[0, 0].numpy()
    return resized.astype(np.uint8)


def _mirrored(plane: np.ndarray) -> np.ndarray:
    """At least 224 x 224."""
    return np.pad(plane, [(0, max(0, SIZE - side)) for side in plane.shape], mode="symmetric")
