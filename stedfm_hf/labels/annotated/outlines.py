"""Readers of outlines: ImageJ ROIs, and polygons in text files."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from skimage.draw import polygon

from stedfm_hf.images import ImageReadError
from stedfm_hf.images.folders import suffix_of
from stedfm_hf.images.mask_name_table import ROI_SUFFIXES
from stedfm_hf.labels.annotated.stored import BACKGROUND, REGION, Key, StoredMask, to_region
from stedfm_hf.runs.errors import UserError

NAMELESS = "object"
"""Class of outlines that have neither a name nor a group."""
_TOLERANCE = 0.01
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
        fractions: Whether the points are fractions of width and height of the image instead, from its corner.
    """

    key: Key
    paths: tuple[np.ndarray, ...]
    fractions: bool = False


def read_outlines(file: Path) -> list[Outline]:
    """Read the outlines of a file; an empty list is a mask without objects.

    The class of an ImageJ ROI (`.roi`, or a `.zip` of ROIs) is its group if one is set, else its name without the
    number that the ROI manager appends (`rings-2`, `rings_2` and `rings 2` belong to `rings`; `VGLUT2` stays
    `VGLUT2`), else `object`. Names that ImageJ generated (`0012-0034`) are ignored.

    Text files contain one polygon per line in one of two layouts; empty lines and lines that start with `#` are
    skipped:

    - `z class [(x, y), (x, y), ...]`, the layout of the files of the reference (`NAME.polys.txt`), or `class [...]`.
    - `class x y x y ...`, separated by spaces, commas or semicolons. The class of a line with an even number of
      numbers only is `object`. If all coordinates of a file are in [0, 1], they are fractions of the image, as YOLO
      writes them; the numbers of the classes then start at 0, and `classes.txt` or `data.yaml` in the folder or above
      it names them.

    Args:
        file: File with one of `OUTLINE_SUFFIXES`.

    Raises:
        ImageReadError: The file is damaged, has an outline without an area, or outlines of several planes.
        UserError: roifile is not installed.
    """
    return _read_rois(file) if suffix_of(file) in ROI_SUFFIXES else _read_text(file)


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
    fractions = any(outline.fractions for outline in outlines)
    for outline in outlines:
        if outline.fractions:
            size = (shape[1], shape[0])
            outline = Outline(outline.key, tuple(path * size - 0.5 for path in outline.paths))
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
    region = None if region is None else to_region(region)
    return StoredMask(stack, tuple(planes), outlines=True, region=region, fractions=fractions)


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
        if suffix_of(file) == ".zip":
            with zipfile.ZipFile(file) as archive:
                members = [name for name in archive.namelist() if _is_roi(name)]
                rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in members]
        else:
            rois = [roifile.ImagejRoi.frombytes(file.read_bytes())]
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


def _is_roi(name: str) -> bool:
    """Return whether a member of an archive is a ROI; `__MACOSX/._a.roi` is metadata that macOS adds to archives."""
    return suffix_of(name) == ".roi" and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


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
        if outline is None and _is_box(text):
            raise ImageReadError(
                f"line {number} is a box ({text[:60]!r}), as YOLO writes for detection; export polygons (YOLO "
                "segmentation)"
            )
        if outline is None:
            raise ImageReadError(
                f"line {number} is not a polygon ({text[:60]!r}); write `class x y x y x y ...` or "
                "`z class [(x, y), (x, y), (x, y)]` with at least three points"
            )
        by_plane[plane].append(outline)
    _check_plane(by_plane)
    outlines = [outline for outlines in by_plane.values() for outline in outlines]
    if not outlines:
        return []
    points = np.concatenate([path for outline in outlines for path in outline.paths])
    if points.min() >= -_TOLERANCE and points.max() <= 1 + _TOLERANCE:
        names = _class_names(file.parent)
        return [Outline(_named(outline.key, names), outline.paths, fractions=True) for outline in outlines]
    if abs(points).max() < 2 and (points % 1).any():
        raise ImageReadError(
            f"has coordinates from {points.min():g} to {points.max():g}, neither pixels nor fractions of the image; "
            "write fractions from 0 to 1, or pixels"
        )
    return outlines


def _is_box(text: str) -> bool:
    words = text.split()
    return (
        len(words) == 5
        and words[0].isdecimal()
        and all(re.fullmatch(_NUMBER, word) and -0.1 < float(word) < 1.1 for word in words[1:])
    )


def _class_names(folder: Path) -> dict[int, str]:
    """Return the names of the classes of YOLO: lines of `classes.txt`, or `names` in `data.yaml`, here or above."""
    for place in (folder, *folder.absolute().parents[:3]):
        try:
            if (lines := place / "classes.txt").is_file():
                return dict(enumerate(lines.read_text(encoding="utf-8-sig").splitlines()))
            if (record := place / "data.yaml").is_file():
                names = (yaml.safe_load(record.read_text(encoding="utf-8-sig")) or {}).get("names", {})
                return {
                    int(n): str(name) for n, name in (names.items() if isinstance(names, dict) else enumerate(names))
                }
        except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise ImageReadError(
                f"has classes whose names cannot be read from {place} ({error}); correct the file"
            ) from error
    return {}


def _named(key: Key, names: Mapping[int, str]) -> Key:
    return names.get(key, "").strip() or key if isinstance(key, int) else key


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
