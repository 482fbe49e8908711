"""Annotated images, which segmentation models are trained and scored on.

Images and masks are read on access; the pixels of every class are counted before.
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
from stedfm_hf.labels.annotated.folders import NAME_BOTH_FOLDERS, read_folder
from stedfm_hf.labels.annotated.repositories import read_masked_repository
from stedfm_hf.labels.annotated.stored import (
    MaskedRows,
    PairReader,
    StoredMask,
    content_digest,
    count_pixels,
    to_smallest_dtype,
)
from stedfm_hf.labels.annotated.targets import Classes, Rule, TargetType, make_rule
from stedfm_hf.labels.labelled.reading import is_class_folder, is_simulated
from stedfm_hf.labels.sourced import SourcedImages, digest_of, in_memory, sha256_of
from stedfm_hf.labels.splits import check_split
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs import UserError, counted, escaped

_SCALING = StedFmImageProcessor()


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotatedImages(SourcedImages[tuple[np.ndarray, np.ndarray]]):
    """Images with their masks and sources; item k is (image, target). See `SourcedImages` for the other fields.

    Attributes:
        rule: Rule that converts masks to targets.
        reader: Reader of the image and the mask of a row of the data set.
        pixels: Number of pixels of each class, (n, L) int64; pixels above 0 for soft masks.
        annotated: Fraction of the pixels that belong to any class except the background, (n,) float64.
        sizes: Number of pixels of each image, (n,) int64.
        without_mask: Names of the images that were excluded because they have no mask.

    Example:
        >>> mask = np.zeros((4, 4), np.uint8)
        >>> mask[:2] = 1
        >>> data = from_arrays("cells", [np.eye(4)], [mask], classes=["rings"])
        >>> image, target = data[0]
        >>> data.classes, image.shape, target.sum().item(), data.counts()
        (('background', 'rings'), (1, 4, 4), 8, {'background': 8, 'rings': 8})
    """

    rule: Rule
    reader: PairReader = field(repr=False)
    pixels: np.ndarray = field(repr=False)
    annotated: np.ndarray = field(repr=False)
    sizes: np.ndarray = field(repr=False)
    without_mask: tuple[str, ...] = ()

    def item(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image and target."""
        return self.image(number), self.target(number)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; with single labels, the background is one of them."""
        return self.rule.classes

    @property
    def target_type(self) -> TargetType:
        """Type of the targets: `single_label`, `multi_label` or `soft`."""
        return self.rule.target_type

    @property
    def background(self) -> int | None:
        """Number of the background class, or None."""
        return self.rule.background

    def stored(self, number: int) -> StedImage:
        """Return an image unscaled, with its pixel size and the intensities that mean 0 and 1 where they are known.

        Args:
            number: Index of the image.
        """
        return self.reader.image(int(self.rows[number]))

    def image(self, number: int) -> np.ndarray:
        """Return an image scaled as its data set defines, or with the default scaling of the models for image files.

        Args:
            number: Index of the image.

        Returns:
            (C, H, W) float32 in [0, 1].
        """
        return _SCALING.prepare(self.stored(number))

    def target(self, number: int) -> np.ndarray:
        """Return the target of an image.

        Args:
            number: Index of the image.

        Returns:
            `single_label`: class numbers (H, W) int64, 255 for ignored pixels; `multi_label`: (L, H, W) uint8 of 0 and
            1; `soft`: (L, H, W) float32 in [0, 1].
        """
        return self.annotation(number)[0]

    def region(self, number: int) -> np.ndarray | None:
        """Return the annotated pixels of an image, (H, W) bool; None: all.

        Args:
            number: Index of the image.
        """
        return self.annotation(number)[1]

    def annotation(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return target and region of an image; the mask is read once.

        Args:
            number: Index of the image.
        """
        mask = self.reader.mask(int(self.rows[number]))
        return self.rule.target(mask), self.rule.region(mask)

    def class_presence(self) -> dict[str, np.ndarray]:
        """Return by class except the background whether each image has pixels of it, (n,) bool."""
        return {name: self.pixels[:, n] > 0 for n, name in enumerate(self.classes) if n != self.background}

    def counts(self) -> dict[str, int]:
        """Return the number of pixels by class; pixels above 0 for soft masks."""
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
    """Build annotated images from arrays in memory.

    Args:
        name: Name of the data set.
        images: Pixels (H, W) or (C, H, W) of each image; scaled as the default of the models, even floats in [0, 1].
        masks: Mask (H, W) or planes (P, H, W) of each image.
        classes: See `read_annotated`.
        target_type: See `read_annotated`.
        sources: Source image id of each image; None: each image is a separate source image.
        regions: Annotated pixels of each image, (H, W) bool; None: all.

    Raises:
        UserError: A mask and its image differ in size, or an error of `read_annotated`.

    Example:
        >>> data = from_arrays("cells", [np.eye(4)], [np.eye(4, dtype=np.uint8)])
        >>> data.target_type, data.annotated.tolist()
        ('single_label', [0.25])
    """
    image_ids = [str(number) for number in range(len(images))]
    wrapped, stored = in_memory(images), []
    for number, (image, mask) in enumerate(zip(wrapped, masks, strict=True)):
        region = None if regions is None else regions[number]
        try:
            planes = to_smallest_dtype(np.asarray(mask) if np.ndim(mask) == 3 else np.asarray(mask)[None])
            check_shape(planes, (image.array.shape[1], image.array.shape[2]))
        except ImageReadError as error:
            raise UserError(f"{name}: the mask of image {number} {error}") from error
        stored.append(StoredMask(planes, region=None if region is None else np.asarray(region, bool)))
    digests = [content_digest(image, mask) for image, mask in zip(wrapped, stored, strict=True)]
    rows = MaskedRows(
        facts=[count_pixels(mask) for mask in stored],
        sources=sources or image_ids,
        image_ids=image_ids,
        contents=[""] * len(image_ids),
        rows=range(len(image_ids)),
        digest=digest_of([], *digests),
        reader=_ArrayPairReader(wrapped, stored),
    )
    return _apply_one_rule({"all": rows}, name, classes, target_type, {}, simulated=False)["all"]


@dataclass(frozen=True, eq=False)
class _ArrayPairReader:
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
    """Read annotated images by split.

    The masks of all splits together define the classes, so that the classes have the same numbers in every split.

    Args:
        data: Data set with masks (local folder or Hub id), or folder of image files with their masks; see
            `find_pairs` for the file names, and
            `read_mask` for the file types.
        split: Name of the only split to return; None: all.
        masks: Separate folder of the masks of a folder of images, with the same layout.
        classes: Names of the classes 1, 2, ... of label images (`background` may be the first), of the planes, bits or
            numbered outlines; or names by number, `{0: "background", 3: "spine", 6: "spine"}`: numbers with the same
            name are one class. None: the names in the data set, else `background`, `class 1`, ...
        target_type: `single_label`, `multi_label` or `soft`; None: inferred from the masks, see
            `make_rule`.
        series: Series of image files to read; None if each file has one. `all` reads each series as a separate image,
            with the mask plane of the same number: the planes of a stack, which share a source image.
        channel: Channel of image files to read; None: all.
        source_pattern: Regular expression for the paths of image files; the text that its first group (or the whole
            pattern) matches is the source image id. None: the id is a hash of the file.

    Returns:
        The images by split; `{"all": ...}` if there are no splits. Images that are unreadable or have an unreadable
        mask are listed in `failed`, images without a mask in `without_mask`.

    Raises:
        UserError: No image has a mask; all masks, or all masks of train, are empty; a mask contains numbers without a
            class (the message names the file and the numbers); the masks have different types; or a package that reads
            them is missing.

    Example:
        >>> splits = read_annotated("annotated_cells", classes=["rings", "fibres"])  # doctest: +SKIP
        >>> splits["all"].classes  # doctest: +SKIP
        ('background', 'rings', 'fibres')
    """
    path = Path(data)
    name = escaped(path.resolve().name if path.exists() else os.fspath(data))
    if not path.exists() and (os.fspath(data).endswith("/") or os.fspath(data).count("/") != 1):
        raise UserError(
            f"{data}: folder not found; use a folder of images and masks, or a data set (on the Hub: OWNER/NAME)"
        )
    if path.is_file():
        raise UserError(f"{data}: a file; use a folder of images and masks, or a data set")
    if is_class_folder(data):
        folder = None if masks is None else Path(masks)
        rows = read_folder(path, folder, series=series, channel=channel, source_pattern=source_pattern)
    else:
        if masks is not None or source_pattern is not None:
            raise UserError(
                f"{data}: a data set, which contains masks and source image ids; omit --masks and the source pattern"
            )
        rows = read_masked_repository(data)
    check_split(os.fspath(data), split, rows)
    known = read_mask_names(data) if classes is None else {}
    found = _apply_one_rule(rows, name, classes, target_type, known, simulated=is_simulated(data))
    if split is not None and split not in found:
        raise UserError(f"{data}: no image of {split} has a readable mask{_first_reason([rows[split]])}")
    return {key: each for key, each in found.items() if split in (None, key)}


def _apply_one_rule(
    splits: Mapping[str, MaskedRows],
    name: str,
    classes: Classes | None,
    target_type: str | None,
    known: Mapping[int, str],
    *,
    simulated: bool,
) -> dict[str, AnnotatedImages]:
    """Make one rule from the masks of all splits, and return the images of each split with this rule.

    Splits without a readable mask are left out.

    Raises:
        UserError: If there is no readable mask, all masks (or all masks of train) are empty, or no rule fits them.
    """
    counts = {
        image_id: each for rows in splits.values() for image_id, each in zip(rows.image_ids, rows.facts, strict=True)
    }
    if not counts:
        without_mask = sum(len(rows.without_mask) for rows in splits.values())
        failed = sum(len(rows.failed) for rows in splits.values())
        hint = (
            "; save the mask of `images/a.tif` as `masks/a.tif`, or that of `a.tif` as `a_mask.tif`; or "
            f"{NAME_BOTH_FOLDERS}"
        )
        raise UserError(
            f"{name}: no image has a readable mask ({without_mask} without a mask, {failed} failed"
            f"{_first_reason(splits.values())}){hint if without_mask else ''}"
        )
    rule = make_rule(counts, where=name, classes=classes, target_type=target_type, known=known)
    by_split = {
        split: _images_of_split(rows, rule, name, simulated) for split, rows in splits.items() if rows.image_ids
    }
    image_count = sum(len(data) for data in by_split.values())
    if not any(data.annotated.any() for data in by_split.values()):
        raise UserError(f"{name}: every mask is empty ({counted(image_count, 'mask')}); annotate some images")
    if "train" in by_split and not by_split["train"].annotated.any():
        masks = counted(len(by_split["train"]), "mask")
        raise UserError(f"{name}: every mask of train is empty ({masks}); annotate some of its images")
    return by_split


def _first_reason(splits: Iterable[MaskedRows]) -> str:
    """Return the first reason why an image failed, as the end of a message."""
    reasons = [f"; {image_id}: {reason}" for rows in splits for image_id, reason in rows.failed.items()]
    return reasons[0] if reasons else ""


def _images_of_split(rows: MaskedRows, rule: Rule, name: str, simulated: bool) -> AnnotatedImages:
    """Build the annotated images of one split: apply the rule to the pixel counts of its rows."""
    content = f"{rule}{list(rows.sources)}{list(rows.rows)}".encode()
    return AnnotatedImages(
        name=name,
        fingerprint=sha256_of(rows.digest, content),
        rule=rule,
        sources=np.array(list(rows.sources), dtype=str),
        image_ids=np.array(list(rows.image_ids), dtype=str),
        contents=np.array(list(rows.contents), dtype=str),
        reader=rows.reader,
        rows=np.array(list(rows.rows), np.int64),
        pixels=np.array([rule.pixels(each) for each in rows.facts], np.int64).reshape(-1, len(rule.classes)),
        annotated=np.array([rule.annotated(each) / each.size for each in rows.facts]),
        sizes=np.array([each.size for each in rows.facts], np.int64),
        simulated=simulated,
        failed=rows.failed,
        without_mask=tuple(rows.without_mask),
    )


_FALSE_ONLY = "the metrics of the class count only its false positives"


def class_warnings(parts: Mapping[str, AnnotatedImages]) -> list[str]:
    """Return warnings about classes that have no pixel in a split.

    Args:
        parts: Images by split.

    Example:
        >>> from stedfm_hf.labels.annotated.images import from_arrays
        >>> import numpy as np
        >>> data = from_arrays("d", [np.eye(4)], [np.eye(4, dtype=np.uint8)], classes=["rings", "fibres"])
        >>> class_warnings({"train": data})
        ['d: no pixel of fibres is in train: the class cannot be learned']
    """
    consequences = {"train": "the class cannot be learned", "validation": _FALSE_ONLY, "test": _FALSE_ONLY}
    warnings = []
    for split, data in parts.items():
        for name in [each for each, pixels in data.counts().items() if not pixels]:
            elsewhere = [other for other, part in parts.items() if other != split and part.counts().get(name)]
            but = (
                f", but {' and '.join(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'} some" if elsewhere else ""
            )
            meaning = consequences.get(split, "the class can be neither learned nor scored")
            warnings.append(f"{data.name}: no pixel of {name} is in {split}{but}: {meaning}")
    return warnings
