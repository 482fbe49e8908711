"""Annotated images: what models of segmentation are trained and scored on.

Images and masks are read when they are asked for; what is counted (pixels of every class) is known before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stedfm_hf.data.repository.mask_names import read_mask_names
from stedfm_hf.images import ImageReadError, StedImage
from stedfm_hf.labels.annotated.annotation_files import check_shape
from stedfm_hf.labels.annotated.folders import SAY_WHICH, read_folder
from stedfm_hf.labels.annotated.repositories import read_masked_repository
from stedfm_hf.labels.annotated.stored import (
    MaskedRows,
    Reads,
    StoredMask,
    content_digest,
    count,
    whole_numbers,
)
from stedfm_hf.labels.annotated.targets import Classes, Rule, TargetType, make_rule
from stedfm_hf.labels.labelled.reading import is_class_folder, is_simulated
from stedfm_hf.labels.sourced import SourcedImages, digest_of, in_memory, sha256_of
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs import UserError, counted

_SCALING = StedFmImageProcessor()


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotatedImages(SourcedImages[tuple[np.ndarray, np.ndarray]]):
    """Images with their masks and sources; item k is (image, target). See :class:`SourcedImages` for other fields.

    Args:
        rule: what the masks mean.
        reads: reads the image and the mask of a row of the data set.
        pixels: (n, L) int64, pixels of every class; of soft masks those above 0.
        annotated: (n,) float64, share of the pixels of any class but the background.
        sizes: (n,) int64, pixels of every image.
        unmasked: images that were left out because they have no mask.

    Example:
        >>> mask = np.zeros((4, 4), np.uint8)
        >>> mask[:2] = 1
        >>> data = from_arrays("cells", [np.eye(4)], [mask], classes=["rings"])
        >>> image, target = data[0]
        >>> data.classes, image.shape, target.sum().item(), data.counts()
        (('background', 'rings'), (1, 4, 4), 8, {'background': 8, 'rings': 8})
    """

    rule: Rule
    reads: Reads = field(repr=False)
    pixels: np.ndarray = field(repr=False)
    annotated: np.ndarray = field(repr=False)
    sizes: np.ndarray = field(repr=False)
    unmasked: tuple[str, ...] = ()

    def item(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and target."""
        return self.image(number), self.target(number)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; of a single label the background is one of them."""
        return self.rule.classes

    @property
    def target_type(self) -> TargetType:
        """What the targets are: `single_label`, `multi_label` or `soft`."""
        return self.rule.target_type

    @property
    def background(self) -> int | None:
        """Number of the class that is no annotation, if there is one."""
        return self.rule.background

    def stored(self, number: int) -> StedImage:
        """An image as it is stored, with its pixel size and the intensities that mean 0 and 1 where they are known."""
        return self.reads.image(int(self.rows[number]))

    def image(self, number: int) -> np.ndarray:
        """An image (C, H, W) float32 in [0, 1], scaled as the repository says; of files, as the models' default."""
        return _SCALING.prepare(self.stored(number))

    def target(self, number: int) -> np.ndarray:
        """The target of an image.

        Returns:
            `single_label`: (H, W) int64 numbers of classes, 255 where it is left out; `multi_label`: (L, H, W) uint8
            of 0 and 1; `soft`: (L, H, W) float32 in [0, 1].
        """
        return self.annotation(number)[0]

    def region(self, number: int) -> np.ndarray | None:
        """Where the annotation of an image counts (H, W) bool; None: everywhere."""
        return self.annotation(number)[1]

    def annotation(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Target and region of an image, read at once."""
        mask = self.reads.mask(int(self.rows[number]))
        return self.rule.target(mask), self.rule.region(mask)

    def shown(self) -> dict[str, np.ndarray]:
        """Of every class but the background which images have pixels of it."""
        return {name: self.pixels[:, n] > 0 for n, name in enumerate(self.classes) if n != self.background}

    def counts(self) -> dict[str, int]:
        """How many pixels every class has; of soft masks those above 0."""
        return {name: int(each) for name, each in zip(self.classes, self.pixels.sum(axis=0), strict=True)}


def from_arrays(
    name: str,
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    *,
    classes: Classes | None = None,
    target_type: str | None = None,
    sources: Sequence[str] | None = None,
    regions: Sequence[np.ndarray | None] | None = None,
) -> AnnotatedImages:
    """Annotated images of arrays in memory.

    Args:
        name: of the data set.
        images: (H, W) or (C, H, W) each; scaled as the models' default, floats in [0, 1] too.
        masks: (H, W) or (P, H, W) each.
        classes: as of :func:`read_annotated`.
        target_type: as of :func:`read_annotated`.
        sources: source image of each; None: each is a source of its own.
        regions: (H, W) bool each, where the annotation counts; None: everywhere.

    Raises:
        UserError: the masks are not of the size of their images, or as of :func:`read_annotated`.
    """
    places = [str(number) for number in range(len(images))]
    wrapped, stored = in_memory(images), []
    for number, (image, mask) in enumerate(zip(wrapped, masks, strict=True)):
        region = None if regions is None else regions[number]
        try:
            planes = whole_numbers(np.asarray(mask) if np.ndim(mask) == 3 else np.asarray(mask)[None])
            check_shape(planes, (image.array.shape[1], image.array.shape[2]))
        except ImageReadError as error:
            raise UserError(f"{name}: the mask of image {number} {error}") from error
        stored.append(StoredMask(planes, region=None if region is None else np.asarray(region, bool)))
    digests = [content_digest(image, mask) for image, mask in zip(wrapped, stored, strict=True)]
    rows = MaskedRows(
        facts=[count(mask) for mask in stored],
        sources=sources or places,
        image_ids=places,
        contents=[""] * len(places),
        rows=range(len(places)),
        digest=digest_of([], *digests),
        reads=_ArrayReads(wrapped, stored),
    )
    return _annotated({"all": rows}, name, classes, target_type, {}, simulated=False)["all"]


@dataclass(frozen=True, eq=False)
class _ArrayReads:
    images: Sequence[StedImage]
    masks: Sequence[StoredMask]

    def image(self, number: int) -> StedImage:
        return self.images[number]

    def mask(self, number: int) -> StoredMask:
        return self.masks[number]


def read_annotated(
    data: str | os.PathLike[str],
    split: str | None = None,
    *,
    masks: str | os.PathLike[str] | None = None,
    classes: Classes | None = None,
    target_type: str | None = None,
    series: str | int | None = None,
    channel: str | int | None = None,
    source_pattern: str | None = None,
) -> dict[str, AnnotatedImages]:
    """Reads annotated images by split.

    What masks mean is decided by those of all splits, so that the classes of one split alone have the numbers they
    have together with the others.

    Args:
        data: a data set repository (local folder or Hub id) whose rows have masks, or a folder of image files with
            their masks; see :func:`~stedfm_hf.labels.annotated.folders.find_pairs` for the names of the files,
            and :func:`~stedfm_hf.labels.annotated.annotation_files.read_mask` for their kinds.
        split: the only split wanted, or None for all.
        masks: of a folder: another one with the masks, laid out like it.
        classes: names of the classes 1, 2, ... of label images (`background` may stand first), of the planes, bits or
            numbered outlines; or what each number means, `{0: "background", 3: "spine", 6: "spine"}`: numbers with
            one name are one class. None: what the data set says, else `background`, `class 1`, ...
        target_type: `single_label`, `multi_label` or `soft`; None: what the masks are, see
            :func:`~stedfm_hf.labels.annotated.targets.make_rule`.
        series: of image files: the one to take; None where files have one. `all` takes each for itself, with the plane
            of the mask that has its number: the planes of a stack, all of one source.
        channel: of image files: the one to take; None takes all.
        source_pattern: of image files: regular expression; what its first group (or the whole) matches in the path is
            the id of the source image. None: the id is a hash of the bytes of the file.

    Returns:
        The splits by name; `{"all": ...}` where there are none. Images that cannot be read, or whose masks cannot,
        are named in `failed`; those without a mask in `unmasked`.

    Raises:
        UserError: there is no image with a mask; all masks are empty, or all of train; numbers in masks are of no
            class (the message names the file and them); the masks are of different kinds; a package is needed.

    Example:
        >>> splits = read_annotated("annotated_cells", classes=["rings", "fibres"])  # doctest: +SKIP
        >>> splits["all"].classes  # doctest: +SKIP
        ('background', 'rings', 'fibres')
    """
    path = Path(data)
    name = path.resolve().name if path.exists() else os.fspath(data)
    if not path.exists() and (os.fspath(data).endswith("/") or os.fspath(data).count("/") != 1):
        raise UserError(
            f"{data}: there is no such folder; name one of images and masks, or a data set (on the Hub: OWNER/NAME)"
        )
    if path.is_file():
        raise UserError(f"{data}: is a file; name a folder of images and masks, or a data set")
    if is_class_folder(data):
        folder = None if masks is None else Path(masks)
        rows = read_folder(path, folder, series=series, channel=channel, source_pattern=source_pattern)
    else:
        if masks is not None or source_pattern is not None:
            raise UserError(
                f"{data}: is a data set, which has masks and sources itself; leave --masks and pattern out"
            )
        rows = read_masked_repository(data)
    if split is not None and split not in rows:
        raise UserError(f"{data}: has no split {split!r}; there are {', '.join(rows)}")
    known = read_mask_names(data) if classes is None else {}
    found = _annotated(rows, name, classes, target_type, known, simulated=is_simulated(data))
    if split is not None and split not in found:
        raise UserError(f"{data}: no image of {split} has a mask that can be read{_first_reason([rows[split]])}")
    return {key: each for key, each in found.items() if split in (None, key)}


def _annotated(
    splits: Mapping[str, MaskedRows],
    name: str,
    classes: Classes | None,
    target_type: str | None,
    known: Mapping[int, str],
    *,
    simulated: bool,
) -> dict[str, AnnotatedImages]:
    """Numbers the classes of all splits alike."""
    facts = {place: each for rows in splits.values() for place, each in zip(rows.image_ids, rows.facts, strict=True)}
    if not facts:
        unmasked = sum(len(rows.unmasked) for rows in splits.values())
        failed = sum(len(rows.failed) for rows in splits.values())
        hint = f"; the mask of a.tif is masks/a.tif beside images/a.tif, or a_mask.tif; else name {SAY_WHICH}"
        raise UserError(
            f"{name}: no image has a mask that can be read ({unmasked} have none, {failed} failed"
            f"{_first_reason(splits.values())}){hint if unmasked else ''}"
        )
    rule = make_rule(facts, where=name, classes=classes, target_type=target_type, known=known)
    found = {split: _of_split(rows, rule, name, simulated) for split, rows in splits.items() if rows.image_ids}
    total = sum(len(data) for data in found.values())
    if not any(data.annotated.any() for data in found.values()):
        raise UserError(f"{name}: every mask is empty ({counted(total, 'mask')}); annotate some images")
    if "train" in found and not found["train"].annotated.any():
        masks = counted(len(found["train"]), "mask")
        raise UserError(f"{name}: every mask of train is empty ({masks}); annotate some of its images")
    return found


def _first_reason(splits: Iterable[MaskedRows]) -> str:
    """The first of the reasons why images failed, as the end of a message."""
    reasons = [f"; {place}: {reason}" for rows in splits for place, reason in rows.failed.items()]
    return reasons[0] if reasons else ""


def _of_split(rows: MaskedRows, rule: Rule, name: str, simulated: bool) -> AnnotatedImages:
    content = f"{rule}{list(rows.sources)}{list(rows.rows)}".encode()
    return AnnotatedImages(
        name=name,
        fingerprint=sha256_of(rows.digest, content),
        rule=rule,
        sources=np.array(list(rows.sources), dtype=str),
        image_ids=np.array(list(rows.image_ids), dtype=str),
        contents=np.array(list(rows.contents), dtype=str),
        reads=rows.reads,
        rows=np.array(list(rows.rows), np.int64),
        pixels=np.array([rule.pixels(each) for each in rows.facts], np.int64).reshape(-1, len(rule.classes)),
        annotated=np.array([rule.annotated(each) / each.size for each in rows.facts]),
        sizes=np.array([each.size for each in rows.facts], np.int64),
        simulated=simulated,
        failed=rows.failed,
        unmasked=tuple(rows.unmasked),
    )


_FALSE_ONLY = "only false marks of it count"


def class_warnings(parts: Mapping[str, AnnotatedImages]) -> list[str]:
    """What a user should know of the splits before training: classes that have no pixel in one of them.

    Example:
        >>> from stedfm_hf.labels.annotated.images import from_arrays
        >>> import numpy as np
        >>> data = from_arrays("d", [np.eye(4)], [np.eye(4, dtype=np.uint8)], classes=["rings", "fibres"])
        >>> class_warnings({"train": data})
        ['d: no pixel of fibres is in train: it cannot be learned']
    """
    means = {"train": "it cannot be learned", "validation": _FALSE_ONLY, "test": _FALSE_ONLY}
    found = []
    for split, data in parts.items():
        for name in [each for each, pixels in data.counts().items() if not pixels]:
            elsewhere = [other for other, part in parts.items() if other != split and part.counts().get(name)]
            there = f", but there are some in {' and '.join(elsewhere)}" if elsewhere else ""
            meaning = means.get(split, "it can be neither learned nor scored")
            found.append(f"{data.name}: no pixel of {name} is in {split}{there}: {meaning}")
    return found
