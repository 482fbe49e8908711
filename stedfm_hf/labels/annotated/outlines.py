"""Masks drawn as outlines: ROIs of ImageJ, and polygons in text files (ours, but for the layout said below)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.draw import polygon

from stedfm_hf.images import ImageReadError
from stedfm_hf.labels.annotated.stored import BACKGROUND, REGION, Key, StoredMask, as_region
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
    - `class x y x y ...`, parted by blanks, commas or semicolons (ours). A line of an even number of numbers alone has
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
