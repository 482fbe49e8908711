"""Masks from files: label images, planes of classes, soft masks, ROIs and polygons."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.draw import polygon

from stedfm_hf.images import ImageReadError, StedImage, list_series, read_image, read_series
from stedfm_hf.labels.annotated.stored import (
    BACKGROUND,
    REGION,
    Key,
    StoredMask,
    as_region,
    take_region,
    whole_numbers,
)
from stedfm_hf.modeling.io_types_stedfm import RGB
from stedfm_hf.runs import counted
from stedfm_hf.runs.errors import UserError

ROI_SUFFIXES = (".zip", ".roi")
TEXT_SUFFIXES = (".txt",)
OUTLINE_SUFFIXES = (*ROI_SUFFIXES, *TEXT_SUFFIXES)
NAMELESS = "object"
"""Class of outlines that have neither a name nor a group."""
_NUMBERED = re.compile(r"[-_ ]\d+$")
_AUTOMATIC = re.compile(r"(roi)?[-_ ]?\d+(-\d+)*", re.IGNORECASE)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PAIR = re.compile(rf"[(\[]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[)\]]")


@dataclass(frozen=True, eq=False)
class Outline:
    """An area.

    Args:
        key: number or name of its class.
        paths: (n, 2) float x and y each, in pixels; (0, 0) is the centre of the first pixel. Where several paths
            overlap, what lies in an even number of them is a hole.
    """

    key: Key
    paths: tuple[np.ndarray, ...]


def read_outlines(file: Path) -> list[Outline]:
    """Reads the outlines of a file; none is a mask without objects.

    Of ImageJ ROIs (`.roi`, or a `.zip` of them) the class is the group, where one is set, else the name without the
    number that the ROI manager puts behind it (`rings-2`, `rings_2` and `rings 2` are of `rings`; `VGLUT2` stays
    `VGLUT2`), else `object`. Names that ImageJ made itself (`0012-0034`) count as none.

    Text files hold one polygon a line, in either of two layouts; lines that are empty or start with `#` are passed
    over:

    - `z class [(x, y), (x, y), ...]`: the reference's files (`NAME.polys.txt`); `class [...]` is read, too.
    - `class x y x y ...`, parted by blanks, commas or semicolons. A line of an even number of numbers alone has
      no class: it is an `object`.

    Args:
        file: one of `OUTLINE_SUFFIXES`.

    Raises:
        ImageReadError: the file is damaged, has an outline without an area, or outlines of several planes.
        UserError: roifile is not installed.
    """
    return _read_rois(file) if file.suffix.lower() in ROI_SUFFIXES else _read_text(file)


def fill(outlines: Sequence[Outline], shape: tuple[int, int]) -> StoredMask:
    """Fills outlines: a pixel belongs to an area if its centre lies in it.

    Outlines called `background` mark nothing, and the one called `region` says where the annotation counts.

    Args:
        outlines: what lies outside the image is cut off.
        shape: (height, width) of the image.

    Returns:
        A plane for each class, in the order of the outlines; one empty plane without a name where there is none.

    Raises:
        ImageReadError: an outline lies wholly outside the image, which is then another one's.

    Example:
        >>> square = Outline("rings", (np.array([[-0.5, -0.5], [1.5, -0.5], [1.5, 1.5], [-0.5, 1.5]]),))
        >>> mask = fill([square], (3, 4))
        >>> mask.keys, mask.planes[0].tolist()
        (('rings',), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    """
    planes: dict[Key, np.ndarray] = {}
    for outline in outlines:
        # Classes are told apart by the case of their names, these two are no classes.
        key = lower if (lower := str(outline.key).lower()) in (BACKGROUND, REGION) else outline.key
        if key == BACKGROUND:
            continue
        points = np.concatenate(outline.paths)
        low, high = points.min(axis=0), points.max(axis=0)
        if (high < -0.5).any() or low[0] > shape[1] - 0.5 or low[1] > shape[0] - 0.5:
            raise ImageReadError(
                f"has an outline at x = {low[0]:.0f}, y = {low[1]:.0f}, outside of the {shape[0]} x {shape[1]} pixels "
                "of the image; is it of another image?"
            )
        area = np.zeros(shape, bool)
        for path in outline.paths:
            area[polygon(path[:, 1], path[:, 0], shape)] ^= True
        planes.setdefault(key, np.zeros(shape, np.uint8))[area] = 1
    region = planes.pop(REGION, None)
    stack = np.stack(list(planes.values())) if planes else np.zeros((1, *shape), np.uint8)
    return StoredMask(stack, tuple(planes), outlines=True, region=None if region is None else as_region(region))


def _read_rois(file: Path) -> list[Outline]:
    try:
        import roifile
    except ImportError as error:
        raise UserError(
            f'{file}: ROIs of ImageJ need roifile, which is not installed; pip install "stedfm-hf[roi]"'
        ) from error
    try:
        found = roifile.roiread(file)
        rois = found if isinstance(found, list) else [found]
    except Exception as error:  # a damaged file makes it raise whatever comes
        raise ImageReadError(f"is no ROI of ImageJ, or damaged ({type(error).__name__}: {error})") from error
    _check_plane((roi.position, roi.z_position, roi.t_position) for roi in rois)
    types = roifile.ROI_TYPE
    areas = {types.POLYGON, types.RECT, types.OVAL, types.FREEHAND, types.TRACED}
    outlines = []
    for number, roi in enumerate(rois):
        name = (roi.name or "").strip()
        other = roi.subtype in (roifile.ROI_SUBTYPE.TEXT, roifile.ROI_SUBTYPE.ARROW, roifile.ROI_SUBTYPE.IMAGE)
        if other or not (roi.roitype in areas or roi.multi_coordinates is not None):
            raise ImageReadError(
                f"holds ROI {name or number + 1!r}, which is no area ({roi.roitype.name.lower()}); take it out, or "
                "draw an area"
            )
        # The corners of pixels have whole coordinates in ImageJ, their centres here.
        paths = [np.asarray(path, np.float64) - 0.5 for path in roi.coordinates(multi=True)]
        outlines.append(Outline(_key_of_roi(roi.group, name), tuple(path for path in paths if len(path) > 2)))
        if not outlines[-1].paths:
            raise ImageReadError(f"holds ROI {name or number + 1!r} of fewer than three points; take it out")
    return outlines


def _key_of_roi(group: int, name: str) -> Key:
    if group > 0:
        return group
    if not name or _AUTOMATIC.fullmatch(name):
        return NAMELESS
    return _NUMBERED.sub("", name) or NAMELESS


def _read_text(file: Path) -> list[Outline]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageReadError(f"is no text file of polygons ({error})") from error
    by_plane: defaultdict[str, list[Outline]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        plane, outline = _parse(text) or ("", None)
        if outline is None:
            raise ImageReadError(
                f"line {number} is no polygon ({text[:60]!r}); write `class x y x y x y ...` or "
                "`z class [(x, y), (x, y), (x, y)]`, of three points or more"
            )
        by_plane[plane].append(outline)
    _check_plane(by_plane)
    return [outline for outlines in by_plane.values() for outline in outlines]


def _parse(line: str) -> tuple[str, Outline] | None:
    """Plane and outline of a line; None where it is neither of the two layouts."""
    if "(" in line or "[" in line:
        head, _, rest = line.partition("[") if "[" in line else (line[: line.index("(")], "", line[line.index("(") :])
        words = head.split()
        left = re.sub(r"[\s,;\]]", "", _PAIR.sub("", rest))
        points = np.array(_PAIR.findall(rest), np.float64)
        if left or len(points) < 3 or len(words) > 2:
            return None
        return words[0] if len(words) == 2 else "", Outline(_key(words[-1]) if words else NAMELESS, (points,))
    words = re.split(r"[\s,;]+", line.strip(" ,;\t"))
    named = len(words) % 2 == 1
    try:
        points = np.array(words[named:], np.float64).reshape(-1, 2)
    except ValueError:
        return None
    if len(points) < 3 or not np.isfinite(points).all():
        return None
    return "", Outline(_key(words[0]) if named else NAMELESS, (points,))


def _key(word: str) -> Key:
    return int(word) if word.isdecimal() else word.strip("\"'")


def _check_plane(planes: Iterable[object]) -> None:
    """Outlines of several planes of a stack would be laid upon one image."""
    if len(there := set(planes)) > 1:
        raise ImageReadError(f"holds outlines of {len(there)} planes of a stack; save those of one plane")


_LOSSY = (".jpg", ".jpeg")
_PNG = b"\x89PNG"
_NO_NAME = re.compile(r"\d*|image|.*[\[/].*", re.IGNORECASE)


def read_mask(
    file: Path, shape: tuple[int, int], region: Path | None = None, *, part: tuple[int, int] | None = None
) -> StoredMask:
    """Reads the mask of an image, whatever kind of file it is.

    One plane is a label image, or holds 0 and 255 only; several are a class each. Planes are the channels and the
    series of a TIFF, or the arrays of an `.npz`; where they have names, these are the names of the classes, and one
    called region says where the annotation counts. Of a PNG with a palette the numbers count, not the colours.

    Args:
        file: with the mask.
        shape: (height, width) of the image.
        region: file with the region of interest: above 0 where the annotation counts.
        part: of an image of several series, the number of one and how many there are: the mask has a plane for each,
            and the one of that number is taken.

    Raises:
        ImageReadError: says what is wrong with which file.
        UserError: a package is needed to read it.
    """
    try:
        if part is not None:
            mask = _read_part(file, *part)
        elif file.suffix.lower() in OUTLINE_SUFFIXES:
            mask = fill(read_outlines(file), shape)
        else:
            mask = _read_raster(file)
        check_shape(mask.planes, shape)
    except (ImageReadError, OSError) as error:
        raise _named("mask", file, error) from error
    if region is None:
        return mask
    try:
        planes, _ = _read_planes(region)
        check_shape(planes, shape)
        if len(planes) > 1:
            raise ImageReadError(f"has {len(planes)} planes; save it with one")
        return StoredMask(mask.planes, mask.keys, mask.outlines, as_region(planes[0]))
    except (ImageReadError, OSError) as error:
        raise _named("region", region, error) from error


def check_shape(planes: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuses planes of another size."""
    if planes.shape[1:] != shape:
        height, width = planes.shape[1:]
        raise ImageReadError(
            f"has {height} x {width} pixels, the image {shape[0]} x {shape[1]}; save both with one size"
        )


def drop_equal_planes(array: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, colours) of a picture as (1, H, W); colours have to be equal."""
    if array.ndim == 2:
        return array[None]
    if array.shape[-1] in (2, 4):
        array = array[..., :-1]  # the last one is opacity
    if any(not np.array_equal(array[..., 0], array[..., number]) for number in range(1, array.shape[-1])):
        raise ImageReadError(
            "is a coloured picture; save the numbers of the classes as a grey one, or a TIFF with a plane for each "
            "class"
        )
    return array[None, ..., 0]


def _named(what: str, file: Path, error: Exception) -> ImageReadError:
    text = str(error)
    reason = text.rpartition(f"{file.name}: ")[2] if isinstance(error, ImageReadError) else f"cannot be read ({text})"
    return ImageReadError(f"its {what} {file.name} {reason}")


def _read_raster(file: Path) -> StoredMask:
    planes, names = _read_planes(file)
    planes, names, region = take_region(planes, names)
    return StoredMask(whole_numbers(planes), tuple(names), region=region)


def _read_part(file: Path, number: int, count: int) -> StoredMask:
    """One plane of a mask with so many of them; the others are not read where they are series, too."""
    if file.suffix.lower() in OUTLINE_SUFFIXES:
        raise ImageReadError(f"holds outlines; save a plane for each of the {count} series of the image")
    series = list_series(file)
    if len(series) == count and len(series[number].channel_names) == 1:
        return StoredMask(whole_numbers(read_image(file, series=number).array))
    mask = _read_raster(file)
    if len(mask.planes) != count:
        planes = counted(len(mask.planes), "plane")
        raise ImageReadError(f"has {planes}; save one for each of the {count} series of the image")
    return StoredMask(mask.planes[number : number + 1], region=mask.region)


def _read_planes(file: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """All planes of a file, and their names: () where not all have one."""
    if file.suffix.lower() in _LOSSY:
        raise ImageReadError("is a JPEG, which changes numbers; save it as PNG or TIFF")
    if (numbers := _palette_numbers(file)) is not None:
        return numbers, ()
    found = list(read_series(file))
    sizes = {image.array.shape[1:] for image in found}
    if len(sizes) > 1:
        raise ImageReadError("holds planes of different sizes; save those of the mask alone")
    planar = _is_planar(file)
    for image in found:
        if image.channel_names == RGB and not planar:
            drop_equal_planes(np.moveaxis(image.array, 0, -1))  # refuses it: equal ones are one already
    planes = np.concatenate([image.array for image in found])
    if len(planes) == 1 and planar:
        # The reader takes three equal planes for a grey picture; here they are three classes.
        planes = np.repeat(planes, 3, axis=0)
    return planes, _plane_names(found, len(planes))


def _palette_numbers(file: Path) -> np.ndarray | None:
    """(1, H, W) numbers of a PNG with a palette; None for any other file."""
    from PIL import Image

    with file.open("rb") as stream:
        if stream.read(len(_PNG)) != _PNG:
            return None
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            return np.asarray(picture)[None] if picture.mode == "P" else None
    except (ValueError, SyntaxError, OSError) as error:
        raise ImageReadError(f"truncated or damaged ({error}); copy or export it again") from error


def _is_planar(file: Path) -> bool:
    """Whether a TIFF says it has colours, and holds them as planes: so `tifffile` writes an array (3, H, W) uint8."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as tif:
            page = tif.pages.first
            return int(page.planarconfig) == 2 and page.samplesperpixel == 3
    except tifffile.TiffFileError:
        return False


def _plane_names(found: Sequence[StedImage], count: int) -> tuple[str, ...]:
    """Names of channels, or of series of one channel; none where a program made them up, or there is one plane."""
    by_channel = [name for image in found for name in image.channel_names]
    by_series = [image.series for image in found]
    for names in (by_channel, by_series):
        if len(names) == count > 1 and len(set(names)) == count and not any(map(_NO_NAME.fullmatch, names)):
            return tuple(names) if tuple(names) != RGB else ()
    return ()
