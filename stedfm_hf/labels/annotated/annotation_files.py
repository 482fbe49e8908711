"""Readers of mask files: label images, planes of classes, soft masks, ROIs and polygons."""

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
    split_region,
    to_region,
    to_smallest_dtype,
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
    """An annotated area.

    Attributes:
        key: Number or name of its class.
        paths: Points (x, y) of each closed path in pixels, (n, 2) float; (0, 0) is the centre of the first pixel.
            Pixels inside of an even number of paths are holes.
    """

    key: Key
    paths: tuple[np.ndarray, ...]


def read_outlines(file: Path) -> list[Outline]:
    """Read the outlines of a file; an empty list is a mask without objects.

    The class of an ImageJ ROI (`.roi`, or a `.zip` of ROIs) is its group if one is set, else its name without the
    number that the ROI manager appends (`rings-2`, `rings_2` and `rings 2` belong to `rings`; `VGLUT2` stays
    `VGLUT2`), else `object`. Names that ImageJ generated (`0012-0034`) are ignored.

    Text files contain one polygon per line in one of two layouts; empty lines and lines that start with `#` are
    skipped:

    - `z class [(x, y), (x, y), ...]`, the layout of the files of the reference (`NAME.polys.txt`), or `class [...]`.
    - `class x y x y ...`, separated by spaces, commas or semicolons. The class of a line with an even number of
      numbers only is `object`.

    Args:
        file: File with one of `OUTLINE_SUFFIXES`.

    Raises:
        ImageReadError: The file is damaged, has an outline without an area, or outlines of several planes.
        UserError: roifile is not installed.
    """
    return _read_rois(file) if file.suffix.lower() in ROI_SUFFIXES else _read_text(file)


def fill(outlines: Sequence[Outline], shape: tuple[int, int]) -> StoredMask:
    """Fill outlines: a pixel belongs to an area if its centre is inside of it.

    Inside an even number of paths of one outline is a hole. Outlines of one class are combined. Outlines called
    `background` are ignored; pixels in those called `region` were annotated.

    Args:
        outlines: Outlines; parts outside of the image are cropped.
        shape: (height, width) of the image in pixels.

    Returns:
        A plane per class, in the order of the outlines; without outlines one empty plane without a name.

    Raises:
        ImageReadError: An outline is completely outside of the image and probably belongs to another image.

    Example:
        >>> square = Outline("rings", (np.array([[-0.5, -0.5], [1.5, -0.5], [1.5, 1.5], [-0.5, 1.5]]),))
        >>> mask = fill([square], (3, 4))
        >>> mask.keys, mask.planes[0].tolist()
        (('rings',), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    """
    planes: dict[Key, np.ndarray] = {}
    for outline in outlines:
        # Class names are case-sensitive; these two are not classes.
        lower = str(outline.key).lower()
        key = lower if lower in (BACKGROUND, REGION) else outline.key
        if key == BACKGROUND:
            continue
        points = np.concatenate(outline.paths)
        low, high = points.min(axis=0), points.max(axis=0)
        # Pixel centres are integers, so the image covers -0.5 to width - 0.5 and -0.5 to height - 0.5.
        if (high < -0.5).any() or low[0] > shape[1] - 0.5 or low[1] > shape[0] - 0.5:
            raise ImageReadError(
                f"has an outline at x = {low[0]:.0f}, y = {low[1]:.0f}, outside of the {shape[0]} x {shape[1]} pixels "
                "of the image; use the mask of this image"
            )
        area = np.zeros(shape, bool)
        for path in outline.paths:
            # Inverting makes a path inside another one a hole. Coordinates are (x, y); arrays are indexed (y, x).
            area[polygon(path[:, 1], path[:, 0], shape)] ^= True
        planes.setdefault(key, np.zeros(shape, np.uint8))[area] = 1
    region = planes.pop(REGION, None)
    stack = np.stack(list(planes.values())) if planes else np.zeros((1, *shape), np.uint8)
    return StoredMask(stack, tuple(planes), outlines=True, region=None if region is None else to_region(region))


def _read_rois(file: Path) -> list[Outline]:
    """Read the areas of an ImageJ ROI file, in pixel coordinates where (0, 0) is the centre of the first pixel.

    Raises:
        ImageReadError: If the file is damaged, or a ROI is a line, point, text or other shape without an area.
        UserError: If roifile is not installed.
    """
    try:
        import roifile
    except ImportError as error:
        raise UserError(
            f'{file}: ImageJ ROIs need roifile, which is not installed. Run: pip install "stedfm-hf[roi]"'
        ) from error
    try:
        content = roifile.roiread(file)
        rois = content if isinstance(content, list) else [content]
    except Exception as error:  # roifile raises many types of errors for damaged files
        raise ImageReadError(
            f"is not an ImageJ ROI, or is damaged ({type(error).__name__}: {error}); export it again"
        ) from error
    _check_plane((roi.position, roi.z_position, roi.t_position) for roi in rois)
    roi_types = roifile.ROI_TYPE
    area_types = {roi_types.POLYGON, roi_types.RECT, roi_types.OVAL, roi_types.FREEHAND, roi_types.TRACED}
    outlines = []
    for number, roi in enumerate(rois):
        name = (roi.name or "").strip()
        is_decoration = roi.subtype in (roifile.ROI_SUBTYPE.TEXT, roifile.ROI_SUBTYPE.ARROW, roifile.ROI_SUBTYPE.IMAGE)
        if is_decoration or not (roi.roitype in area_types or roi.multi_coordinates is not None):
            raise ImageReadError(
                f"contains ROI {name or number + 1!r}, which is not an area ({roi.roitype.name.lower()}); delete it, "
                "or replace it by an area"
            )
        # Integer coordinates are corners of pixels in ImageJ, and centres of pixels here.
        paths = [np.asarray(path, np.float64) - 0.5 for path in roi.coordinates(multi=True)]
        outlines.append(Outline(_key_of_roi(roi.group, name), tuple(path for path in paths if len(path) > 2)))
        if not outlines[-1].paths:
            raise ImageReadError(f"contains ROI {name or number + 1!r} with fewer than three points; delete it")
    return outlines


def _key_of_roi(group: int, name: str) -> Key:
    if group > 0:
        return group
    if not name or _AUTOMATIC.fullmatch(name):
        return NAMELESS
    return _NUMBERED.sub("", name) or NAMELESS


def _read_text(file: Path) -> list[Outline]:
    """Read a text file with one polygon per line; an error names the line that is neither of the two layouts."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageReadError(f"is not a text file of polygons ({error}); save it as UTF-8 text") from error
    by_plane: defaultdict[str, list[Outline]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        plane, outline = _parse(text) or ("", None)
        if outline is None:
            raise ImageReadError(
                f"line {number} is not a polygon ({text[:60]!r}); write `class x y x y x y ...` or "
                "`z class [(x, y), (x, y), (x, y)]` with at least three points"
            )
        by_plane[plane].append(outline)
    _check_plane(by_plane)
    return [outline for outlines in by_plane.values() for outline in outlines]


def _parse(line: str) -> tuple[str, Outline] | None:
    """Return the plane and the outline of a line, or None if it has neither of the two layouts."""
    if "(" in line or "[" in line:
        prefix, _, rest = (
            line.partition("[") if "[" in line else (line[: line.index("(")], "", line[line.index("(") :])
        )
        words = prefix.split()
        unparsed = re.sub(r"[\s,;\]]", "", _PAIR.sub("", rest))
        points = np.array(_PAIR.findall(rest), np.float64)
        if unparsed or len(points) < 3 or len(words) > 2:
            return None
        return words[0] if len(words) == 2 else "", Outline(_key(words[-1]) if words else NAMELESS, (points,))
    words = re.split(r"[\s,;]+", line.strip(" ,;\t"))
    has_name = len(words) % 2 == 1  # x and y come in pairs, so an odd word is the name; also used as an index
    try:
        points = np.array(words[has_name:], np.float64).reshape(-1, 2)
    except ValueError:
        return None
    if len(points) < 3 or not np.isfinite(points).all():
        return None
    return "", Outline(_key(words[0]) if has_name else NAMELESS, (points,))


def _key(word: str) -> Key:
    return int(word) if word.isdecimal() else word.strip("\"'")


def _check_plane(planes: Iterable[object]) -> None:
    """Raise an error if the outlines belong to several planes of a stack."""
    if len(found := set(planes)) > 1:
        raise ImageReadError(f"contains outlines of {len(found)} planes of a stack; save the outlines of one plane")


_LOSSY = (".jpg", ".jpeg")
_PNG = b"\x89PNG"
_NO_NAME = re.compile(r"\d*|image|.*[\[/].*", re.IGNORECASE)


def read_mask(
    file: Path, shape: tuple[int, int], region: Path | None = None, *, part: tuple[int, int] | None = None
) -> StoredMask:
    """Read the mask of an image from a file of any supported type.

    A single plane is a label image, or a binary mask of 0 and 255; several planes are one class each. Planes are the
    channels and the series of a TIFF, or the arrays of an `.npz`. If they have names, these are the names of the
    classes, and the plane called region marks the annotated pixels. A PNG with a palette is read as its indices, not
    its colours.

    Args:
        file: File of the mask.
        shape: (height, width) of the image in pixels.
        region: File of the region of interest, above 0 for annotated pixels; None: all pixels.
        part: Number of a series of the image and number of its series, to read the plane of that number; None: the
            file is the mask of one image.

    Raises:
        ImageReadError: The file or region cannot be read; the message names it.
        UserError: A package that reads it is missing.
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
        raise _with_name("mask", file, error) from error
    if region is None:
        return mask
    try:
        planes, _ = _read_planes(region)
        check_shape(planes, shape)
        if len(planes) > 1:
            raise ImageReadError(f"has {len(planes)} planes; save it with one plane")
        return StoredMask(mask.planes, mask.keys, mask.outlines, to_region(planes[0]))
    except (ImageReadError, OSError) as error:
        raise _with_name("region", region, error) from error


def check_shape(planes: np.ndarray, shape: tuple[int, int]) -> None:
    """Raise an error if planes and image differ in size.

    Args:
        planes: Planes of a mask, (P, H, W).
        shape: (height, width) of the image in pixels.

    Raises:
        ImageReadError: The sizes differ.
    """
    if planes.shape[1:] != shape:
        height, width = planes.shape[1:]
        raise ImageReadError(
            f"has {height} x {width} pixels, the image {shape[0]} x {shape[1]}; save both in the same size"
        )


def drop_equal_planes(array: np.ndarray) -> np.ndarray:
    """Convert a grey image (H, W), or (H, W, colours) with equal colours, to one plane (1, H, W).

    Args:
        array: Pixels of the image.

    Raises:
        ImageReadError: The colours differ.

    Example:
        >>> drop_equal_planes(np.ones((4, 5, 3), np.uint8)).shape
        (1, 4, 5)
    """
    if array.ndim == 2:
        return array[None]
    if array.shape[-1] in (2, 4):
        array = array[..., :-1]  # the last channel is the opacity
    if any(not np.array_equal(array[..., 0], array[..., number]) for number in range(1, array.shape[-1])):
        raise ImageReadError(
            "is a colour image; save the numbers of the classes as a greyscale image, or a TIFF with a plane per class"
        )
    return array[None, ..., 0]


def _with_name(kind: str, file: Path, error: Exception) -> ImageReadError:
    text = str(error)
    reason = text.rpartition(f"{file.name}: ")[2] if isinstance(error, ImageReadError) else f"cannot be read ({text})"
    return ImageReadError(f"its {kind} {file.name} {reason}")


def _read_raster(file: Path) -> StoredMask:
    planes, names = _read_planes(file)
    planes, names, region = split_region(planes, names)
    return StoredMask(to_smallest_dtype(planes), tuple(names), region=region)


def _read_part(file: Path, number: int, count: int) -> StoredMask:
    """Return one plane of a mask with `count` planes; other series are not decoded."""
    if file.suffix.lower() in OUTLINE_SUFFIXES:
        raise ImageReadError(f"contains outlines; save a plane for each of the {count} series of the image")
    series = list_series(file)
    if len(series) == count and len(series[number].channel_names) == 1:
        return StoredMask(to_smallest_dtype(read_image(file, series=number).array))
    mask = _read_raster(file)
    if len(mask.planes) != count:
        planes = counted(len(mask.planes), "plane")
        raise ImageReadError(f"has {planes}; save one plane for each of the {count} series of the image")
    return StoredMask(mask.planes[number : number + 1], region=mask.region)


def _read_planes(file: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return all planes of a file and their names, or () if one has no name."""
    if file.suffix.lower() in _LOSSY:
        raise ImageReadError("is a JPEG, which changes pixel values; save it as PNG or TIFF")
    if (numbers := _palette_numbers(file)) is not None:
        return numbers, ()
    all_series = list(read_series(file))
    sizes = {image.array.shape[1:] for image in all_series}
    if len(sizes) > 1:
        raise ImageReadError("contains planes of different sizes; save only the planes of the mask")
    planar = _is_planar(file)
    for image in all_series:
        if image.channel_names == RGB and not planar:
            drop_equal_planes(np.moveaxis(image.array, 0, -1))  # raises the error; the reader merges equal planes
    planes = np.concatenate([image.array for image in all_series])
    if len(planes) == 1 and planar:
        # The reader merges three equal planes to a grey image; here they are three classes.
        planes = np.repeat(planes, 3, axis=0)
    return planes, _plane_names(all_series, len(planes))


def _palette_numbers(file: Path) -> np.ndarray | None:
    """Return the indices (1, H, W) of a PNG with a palette; None for any other file."""
    from PIL import Image

    with file.open("rb") as stream:
        if stream.read(len(_PNG)) != _PNG:
            return None
    try:
        with Image.open(file, formats=("PNG",)) as image:
            return np.asarray(image)[None] if image.mode == "P" else None
    except (ValueError, SyntaxError, OSError) as error:
        raise ImageReadError(f"is truncated or damaged ({error}); copy or export it again") from error


def _is_planar(file: Path) -> bool:
    """Return whether a TIFF stores colours as planes, as `tifffile` writes a (3, H, W) uint8 array."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as tif:
            page = tif.pages.first
            return int(page.planarconfig) == 2 and page.samplesperpixel == 3
    except tifffile.TiffFileError:
        return False


def _plane_names(found: Sequence[StedImage], count: int) -> tuple[str, ...]:
    """Return the names of channels or of series with one channel; () for generated names or a single plane."""
    by_channel = [name for image in found for name in image.channel_names]
    by_series = [image.series for image in found]
    for names in (by_channel, by_series):
        if len(names) == count > 1 and len(set(names)) == count and not any(map(_NO_NAME.fullmatch, names)):
            return tuple(names) if tuple(names) != RGB else ()
    return ()
