"""File names of masks: every command decides here which file is the mask of which image.

Names are compared in the Unicode form NFC, without the suffixes of image files (`a.ome.tif` is `a`).
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..modeling.npy_stedfm import read_npy_header
from ..runs.errors import UserError
from ..runs.wording import counted, some_of
from .folders import FoundImage, composed, find_images, is_result_file, suffix_of, walk_files
from .formats import readable_suffixes
from .mask_name_table import IMAGES, MASK_NAMES, MASKS, OUTLINE_SUFFIXES, POLYGONS_END, REGION_END, TEXT_SUFFIXES

_PREVIEWS = (".png", ".jpg", ".jpeg", ".bmp")
_IMAGE_ENDS = ("_image", "_img", "-image")


@dataclass
class MaskNotes:
    """What was guessed or left out when masks were assigned to images.

    Attributes:
        skipped: Masks among the images.
        loose: Masks whose names differ in upper and lower case or in spaces.
        previews: Images that are left out, because another image has their name.
        pickled: Masks that are pickles, of images without another mask.
        unused: Masks of images for which a better mask of the same program exists.
        without_image: Masks for which no image has the name.
    """

    skipped: list[FoundImage] = field(default_factory=list)
    loose: list[FoundImage] = field(default_factory=list)
    previews: list[FoundImage] = field(default_factory=list)
    pickled: list[FoundImage] = field(default_factory=list)
    unused: list[FoundImage] = field(default_factory=list)
    without_image: list[FoundImage] = field(default_factory=list)

    def add(self, other: MaskNotes) -> None:
        """Add the notes on other images."""
        for each in fields(self):
            getattr(self, each.name).extend(getattr(other, each.name))

    def lines(self) -> list[str]:
        """Return one line for each kind, with the number of files."""
        lines = [describe_masks(self.skipped)] if self.skipped else []
        sentences = (
            (self.loose, "mask", "matched by a name that differs in upper and lower case or in spaces"),
            (self.previews, "file", "skipped as a preview of an image with the same name"),
            (self.unused, "mask", "not used, because the same program wrote a better one for the image"),
            (self.without_image, "mask", "without an image of the same name"),
        )
        lines += [
            f"note: {counted(len(files), noun)} {text}: {_listed(files)}" for files, noun, text in sentences if files
        ]
        if self.pickled:
            lines.append(
                f"note: {counted(len(self.pickled), 'file')} with pickled objects, which are never loaded "
                f"({_listed(self.pickled)}); save masks as TIFF (in Cellpose: File > Save masks as PNG/tif)"
            )
        return lines


def _listed(files: Sequence[FoundImage]) -> str:
    return some_of([each.path for each in files], 2)


@dataclass(frozen=True)
class MaskedImages:
    """Images and their masks.

    Attributes:
        images: Files that are not masks.
        masks: Candidates for the mask of an image, by the path of the image. More than one is an error.
        shared: Path of another image with the same name, by the path of an image whose mask is ambiguous therefore.
        notes: What was guessed or left out.
    """

    images: tuple[FoundImage, ...]
    masks: Mapping[str, tuple[Path, ...]]
    shared: Mapping[str, str]
    notes: MaskNotes


def base_name(path: str) -> str:
    """Return a path without the suffixes of an image file, in the Unicode form NFC.

    Example:
        >>> base_name("x/c.ome.tif"), base_name("v1.2.png"), base_name("a.tif.txt")
        ('x/c', 'v1.2', 'a')
    """
    folder, slash, name = composed(path).rpartition("/")
    return f"{folder}{slash}{_without_image_suffixes(os.path.splitext(name.rstrip())[0])}"


def _without_image_suffixes(name: str) -> str:
    while suffix_of(name) in (".ome", *readable_suffixes()):
        name = os.path.splitext(name.rstrip())[0]
    return name


def pair_masks(
    images: Sequence[FoundImage], folder: str | os.PathLike[str], *, outlines: bool = False
) -> MaskedImages:
    """Find the mask of each image in a folder, and remove masks from the images.

    In a folder of masks, the mask of `a/b.tif` is `a/b.*`, or has one of `MASK_NAMES`. If the folder is the input
    itself, only these names are masks. `b_image.tif` is an image with the name `b`, too.

    Args:
        images: Image files of the inputs.
        folder: Folder of the masks, with the same subfolders as the input.
        outlines: Whether files of outlines are masks, too.

    Returns:
        The images without the masks, and the masks of each image.

    Raises:
        UserError: The folder does not exist, holds no mask that can be read, or holds a mask for each object.
    """
    suffixes = (*readable_suffixes(), *(OUTLINE_SUFFIXES if outlines else ()))
    all_files = list(walk_files(Path(folder)))
    files = [each for each in all_files if suffix_of(each.path) in suffixes]
    if not files and any(suffix_of(each.path) in OUTLINE_SUFFIXES for each in all_files):
        raise UserError(
            f"{folder}: holds outlines ({some_of([each.path for each in all_files])}) and no label images; save label "
            "images, or use the outlines directly with `stedfm finetune segmentation`"
        )
    if not files:
        find_images(folder)  # raises the error
    _check_object_masks(files, Path(folder))
    real_path = {each.path: os.path.realpath(each.file) for each in files}
    mask_files = set(real_path.values())
    shared = {each.path for each in images if os.path.realpath(each.file) in mask_files}
    next_to_images = len(shared) == len(images)
    if next_to_images:
        masks_among = find_masks(images)
        not_images = {each.path for each in images if each in masks_among or _is_certain(each.path)}
    else:
        not_images = shared  # all files in a folder of masks inside the input are masks
    kept = tuple(each for each in images if each.path not in not_images)
    others = set() if next_to_images else find_masks(kept)
    found = _match(tuple(each for each in kept if each not in others), files, next_to_images)
    found.notes.skipped += [each for each in kept if each in others]
    return found


def _match(images: tuple[FoundImage, ...], files: Sequence[FoundImage], next_to_images: bool) -> MaskedImages:
    """Assign files to images by name."""
    notes = MaskNotes()
    pickled = [each for each in files if suffix_of(each.path) == ".npy" and is_pickled(each.file)]
    image_files = {os.path.realpath(each.file) for each in images} | {os.path.realpath(each.file) for each in pickled}
    files = [each for each in files if os.path.realpath(each.file) not in image_files]
    exact, loose = _Index(), _Index()
    by_folder: defaultdict[tuple[str, str], list[tuple[int, FoundImage]]] = defaultdict(list)
    for file in files:
        for place, rank in _places_of_mask(file.path) if next_to_images else ():
            by_folder[place].append((rank, file))
        for name, rank in _image_names(file.path, in_folder=not next_to_images):
            exact[name].append((rank, file))
            loose[_loose(name)].append((rank, file))
    base_names = Counter(base_name(each.path) for each in images)
    loose_names = Counter(map(_loose, base_names))
    masks, known = dict[str, tuple[Path, ...]](), set[FoundImage]()
    for image in images:
        # `c_mask` is the mask of `c_image` only if there is no image `c`.
        first, *more = _names_of_image(image.path)
        names = [first, *(name for name in more if name not in base_names)]
        groups = [exact[name] for name in names if name in exact]
        groups += [by_folder[place] for place in _places_of_image(image.path) if place in by_folder]
        if not groups and loose_names[_loose(first)] == 1:
            groups = [loose[_loose(name)] for name in names if _loose(name) in loose]
            notes.loose += _best(groups)
        candidates = _best(groups)
        if candidates:
            masks[image.path] = tuple(each.file for each in candidates)
            of_image = [file for group in groups for rank, file in group if MASK_NAMES[rank].is_mask]
            notes.unused += [each for each in dict.fromkeys(of_image) if each not in candidates]
        known.update(file for group in groups for _, file in group)
    kept, shared = _separate_previews(images, masks, notes)
    with_mask = {name for path in masks for name in _names_of_image(path)}
    for each in pickled:
        if not with_mask.intersection(name for name, _ in _image_names(each.path, in_folder=True)):
            notes.pickled.append(each)
    notes.without_image += [each for each in files if each not in known and _is_orphan(each.path, next_to_images)]
    kept_paths = {each.path for each in kept}
    return MaskedImages(kept, {path: each for path, each in masks.items() if path in kept_paths}, shared, notes)


def _is_orphan(path: str, next_to_images: bool) -> bool:
    """Return whether a file without an image is probably a mask: in a folder of masks, or with the name of a mask."""
    if base_name(path).lower().endswith(REGION_END) or is_result_file(path.rpartition("/")[2]):
        return False
    if next_to_images or suffix_of(path) in TEXT_SUFFIXES:
        return _is_certain(path)
    return True


class _Index(defaultdict[str, list[tuple[int, FoundImage]]]):
    """Files by the name of the image that they could belong to, each with its position in `MASK_NAMES`."""

    def __init__(self) -> None:
        super().__init__(list)


def _best(groups: Iterable[list[tuple[int, FoundImage]]]) -> list[FoundImage]:
    """Return the masks of the first group with masks: those with the name of the image, else the best per program."""
    for group in groups:
        ranked = [(rank, file) for rank, file in group if MASK_NAMES[rank].is_mask]
        if same_name := [file for rank, file in ranked if rank == 0]:
            return same_name
        best_rank: dict[str, int] = {}
        for rank, _ in ranked:
            program = MASK_NAMES[rank].program
            best_rank[program] = min(rank, best_rank.get(program, rank))
        chosen = (
            file
            for rank, file in ranked
            if rank == best_rank[MASK_NAMES[rank].program] or not MASK_NAMES[rank].program
        )
        if ranked:
            return list(dict.fromkeys(chosen))
    return []


def _separate_previews(
    images: Sequence[FoundImage], masks: Mapping[str, tuple[Path, ...]], notes: MaskNotes
) -> tuple[tuple[FoundImage, ...], dict[str, str]]:
    """Remove previews: `a.png` next to the image `a.tif` with the same mask.

    Args:
        images: Images.
        masks: Masks of the images, by path.
        notes: Notes to which the previews are added.

    Returns:
        The other images, and a conflicting image by the path of each image that has one.
    """
    groups: defaultdict[str, list[FoundImage]] = defaultdict(list)
    for each in images:
        if each.path in masks:
            groups[base_name(each.path)].append(each)
    shared: dict[str, str] = {}
    for group in groups.values():
        originals = [each for each in group if suffix_of(each.path) not in _PREVIEWS]
        if len(group) > 1 and len(originals) == 1:
            notes.previews += [each for each in group if each not in originals]
        elif len(group) > 1:
            shared |= {each.path: next(other.path for other in group if other != each) for each in group}
    left_out = set(notes.previews)
    return tuple(each for each in images if each not in left_out), shared


def is_pickled(file: Path) -> bool:
    """Return whether an `.npy` file holds Python objects, such as `a_seg.npy` of Cellpose; reads its header only."""
    try:
        with file.open("rb") as stream:
            return bool(read_npy_header(stream)[2].hasobject)
    except Exception:  # NumPy parses the header as Python, and a damaged one raises any error of the parser
        return False


def find_masks(images: Sequence[FoundImage]) -> set[FoundImage]:
    """Find masks of other files, and other results of the programs in `MASK_NAMES`.

    A file is the mask of another one next to it (`b_mask.*` of `b.tif`), or by its folder: `masks/b.*` of
    `images/b.tif` or `b.tif`. If a folder `images` holds one image, all files in the folder `masks` next to it are
    masks of its objects. A file without a matching image is not a mask.

    Args:
        images: Image files of one folder, with paths relative to it.

    Returns:
        The masks among the files.

    Example:
        >>> names = ("images/a.tif", "masks/a.png", "masks/b.tif", "c.ome.tif", "c_mask.tif", "d_mask.tif")
        >>> sorted(each.path for each in find_masks([FoundImage(Path(name), name) for name in names]))
        ['c_mask.tif', 'masks/a.png']
    """
    next_to_masks = {name for image in images for name in _names_of_image(image.path)}
    by_folder = {place for image in images for place in _places_of_image(image.path)}
    single = _folders_of_objects(images)
    found = set()
    for each in images:
        in_single = any(name in MASKS and parent in single for parent, name, _ in _folders(each.path))
        if in_single or any(place in by_folder for place, _ in _places_of_mask(each.path)):
            found.add(each)
        if any(other in next_to_masks for other, _ in _image_names(each.path, in_folder=False)):
            found.add(each)
    return found


def describe_masks(masks: Sequence[FoundImage]) -> str:
    """Return a note on masks that are not read as images.

    Args:
        masks: Masks that were left out; at least one.
    """
    return (
        f"note: skipped {counted(len(masks), 'mask')} of the input images, such as {masks[0].file}; to read a mask as "
        "an image, give the path of its file"
    )


def describe_same_names(images: Sequence[FoundImage]) -> str:
    """Return a note on files that have the name of another image, such as the preview `a.png` of `a.tif`.

    Args:
        images: Image files.

    Returns:
        The note; empty if all names differ.
    """
    groups: defaultdict[str, list[FoundImage]] = defaultdict(list)
    for each in images:
        groups[base_name(each.path)].append(each)
    more = [(group[0], each) for group in groups.values() for each in group[1:]]
    if not more:
        return ""
    first, other = more[0]
    return (
        f"note: {counted(len(more), 'file')} with the name of another image and a different suffix ({other.path} and "
        f"{first.path}); if these show the same field, move one of them out of the input"
    )


def _folders_of_objects(images: Sequence[FoundImage]) -> dict[str, list[FoundImage]]:
    """Return the masks of objects by folder: `ID/masks/*`, where `ID/images` holds one image of another name."""
    names, masks = defaultdict[str, set[str]](set), defaultdict[str, list[FoundImage]](list)
    other_names = defaultdict[str, set[str]](set)
    for each in images:
        for parent, name, inner in _folders(each.path):
            if parent and name in IMAGES:
                names[parent].add(base_name(inner))
            elif parent and name in MASKS:
                masks[parent].append(each)
                other_names[parent].update(image for image, _ in _image_names(inner, in_folder=True))
    return {
        parent: files
        for parent, files in masks.items()
        if len(names[parent]) == 1 and not names[parent] & other_names[parent]
    }


def _check_object_masks(images: Sequence[FoundImage], where: Path) -> None:
    """Check that images have one mask each, and not a mask for each object.

    Args:
        images: All image files of a folder, with paths relative to it.
        where: The folder, for the message.

    Raises:
        UserError: A folder per image holds the image in `images` and a mask for each object in `masks`.
    """
    for files in _folders_of_objects(images).values():
        folder = files[0].path.rpartition("/")[0]
        raise UserError(
            f"{where}: holds a folder for each image, with a mask for each object ({counted(len(files), 'file')} in "
            f"{folder}); combine these masks into one label image, and save it as masks/a.tif for images/a.tif"
        )


def numbers_objects(file: Path) -> bool:
    """Return whether a program that wrote a mask with this name numbers objects.

    Example:
        >>> numbers_objects(Path("a_cp_masks.tif")), numbers_objects(Path("a_mask.tif"))
        (True, False)
    """
    return any(MASK_NAMES[rank].numbered for _, rank in _image_names(file.name, in_folder=False))


def is_of_ilastik(file: Path) -> bool:
    """Return whether a mask has a name that ilastik writes.

    Example:
        >>> is_of_ilastik(Path("a_Simple Segmentation.tif")), is_of_ilastik(Path("a_mask.tif"))
        (True, False)
    """
    return any(MASK_NAMES[rank].program == "ilastik" for _, rank in _image_names(file.name, in_folder=False))


def is_mask_name(image: FoundImage) -> bool:
    """Return whether a file has a name that only masks have, such as `a_mask.tif`."""
    return _is_certain(image.path)


def _is_certain(path: str) -> bool:
    return any(MASK_NAMES[rank].certain for _, rank in _image_names(path, in_folder=False))


def _names_of_image(path: str) -> list[str]:
    """Return the names by which masks can refer to an image, best first."""
    name = base_name(path)
    return [name, *(name[: -len(end)] for end in _IMAGE_ENDS if name.lower().endswith(end))]


def mask_examples(path: str) -> list[str]:
    """Return possible names of the mask of an image in a folder of masks, for messages.

    Example:
        >>> mask_examples("a/b.ome.tif")
        ['a/b.*', 'a/b_mask.*']
    """
    name = base_name(path)
    return [f"{name}.*", f"{name}_mask.*"]


def _image_names(path: str, *, in_folder: bool) -> Iterator[tuple[str, int]]:
    """Yield the images that a file could belong to, by their name, with the position of its name in `MASK_NAMES`.

    Args:
        path: Path of the file.
        in_folder: Whether the file is in a folder of masks.
    """
    suffix, whole = suffix_of(path), base_name(path)
    folder, slash, stem = whole.rpartition("/")
    if suffix in TEXT_SUFFIXES and stem.lower().endswith(POLYGONS_END):
        stem = stem[: -len(POLYGONS_END)]
        yield f"{folder}{slash}{stem}", 0 if in_folder else 1
        if annotated := stem.rpartition("_")[0]:  # in the reference protocol, the annotator follows the image
            yield f"{folder}{slash}{annotated}", 0 if in_folder else 1
        return
    lower = stem.lower()
    for rank, rule in enumerate(MASK_NAMES):
        if (rule.suffixes and suffix not in rule.suffixes) or (rule.folder_only and not in_folder):
            continue
        rest = stem[len(rule.before) : len(stem) - len(rule.after)]
        if rest and lower.startswith(rule.before) and lower.endswith(rule.after):
            yield f"{folder}{slash}{_without_image_suffixes(rest)}", rank


def _places_of_image(path: str) -> list[tuple[str, str]]:
    """Return the folders in which a folder `masks` can hold the mask of an image, with its name relative to each.

    Example:
        >>> _places_of_image("day1/images/a.tif")
        [('day1', 'a')]
    """
    names, folders = _names_of_image(path), list(_folders(path))
    beside = not any(name in (*IMAGES, *MASKS) for _, name, _ in folders)  # `a.tif` next to the folder `masks`
    starts = [(parent, len(parent) + len(name) + 1) for parent, name, _ in folders if name in IMAGES]
    if beside:
        own = composed(path.rpartition("/")[0])
        starts += [(parent, len(parent)) for parent in (*(parent for parent, _, _ in folders), own)]
    return [(parent, name[start:].lstrip("/")) for parent, start in starts for name in names]


def _places_of_mask(path: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield the places of the images to which a file in a folder `masks` can belong, with its rank in `MASK_NAMES`."""
    for parent, name, inner in _folders(path):
        if name in MASKS:
            for image, rank in _image_names(inner, in_folder=True):
                yield (parent, image), rank


def _loose(name: str) -> str:
    """Return a name without upper case and spaces around it."""
    return "/".join(part.strip() for part in name.casefold().split("/"))


def _folders(path: str) -> Iterator[tuple[str, str, str]]:
    """Yield each folder of a path: its parent, its name in lower case, and the path inside it."""
    parts = composed(path).split("/")
    for level, name in enumerate(parts[:-1]):
        yield "/".join(parts[:level]), name.lower(), "/".join(parts[level + 1 :])
