"""Read annotated images: with masks, or with a table of clicks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from skimage.draw import disk

from stedfm_hf.acquisition.settings import FitFinderSettings
from stedfm_hf.data.sources import Source, find_sources
from stedfm_hf.evaluation.segmentation.scores import target_masks
from stedfm_hf.images import StedImage
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.labelled.reading import source_of
from stedfm_hf.labels.reading import read_annotated_images
from stedfm_hf.labels.training_sources import source_ids
from stedfm_hf.runs import UserError, sha256_file, some_of

STRUCTURE, BACKGROUND_NAME = "structure", "background"
"""Class of clicks without a class, and name of the background."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """Image with the masks of its classes.

    Attributes:
        name: Name of the image.
        source: Id of its source image.
        image: Image.
        planes: Masks of the classes, without the background (L, H, W) bool.
        annotated: Pixels that were annotated (H, W) bool.
    """

    name: str
    source: str
    image: StedImage
    planes: np.ndarray
    annotated: np.ndarray


def annotated_image(data: AnnotatedImages, number: int) -> Annotated:
    """Read an annotated image.

    Args:
        data: Annotated images.
        number: Index of the image.
    """
    planes, annotated = target_masks(data, number)
    kept = [each for each in range(len(planes)) if each != data.background]
    name, source = str(data.image_ids[number]), str(data.sources[number])
    return Annotated(name, source, data.stored(number), planes[kept] >= 0.5, annotated)


def foreground_classes(data: AnnotatedImages) -> tuple[str, ...]:
    """Return the names of the classes of annotated images, without the background."""
    return tuple(name for number, name in enumerate(data.classes) if number != data.background)


@dataclass(frozen=True, eq=False)
class MaskedImages:
    """Images of a data set with masks.

    Attributes:
        splits: Annotated images by split; all splits are used.
    """

    splits: Mapping[str, AnnotatedImages]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, without the background."""
        return foreground_classes(next(iter(self.splits.values())))

    @property
    def fingerprint(self) -> str:
        """Text that changes with the images and the masks."""
        return " ".join(each.fingerprint for each in self.splits.values())

    def __iter__(self) -> Iterator[Annotated]:
        for data in self.splits.values():
            yield from (annotated_image(data, number) for number in range(len(data)))

    def source_ids(self) -> set[str]:
        """Return the ids of the source images, and of the contents of the images."""
        return source_ids(self.splits.values())


@dataclass(frozen=True, eq=False)
class ClickedImages:
    """Images with clicks.

    Attributes:
        classes: Names of the classes, without the background.
        clicks: Class number (0 is the background), y and x in pixels of each click, by path.
        sources: Source of each path.
        radius_px: Radius of the disc that a click marks, in pixels.
        settings: Settings of the command.
        fingerprint: Text that changes with the clicks.
    """

    classes: tuple[str, ...]
    clicks: Mapping[str, list[tuple[int, float, float]]]
    sources: Mapping[str, Source]
    radius_px: float
    settings: FitFinderSettings
    fingerprint: str

    @property
    def marks_background(self) -> bool:
        """Whether the background was clicked; if not, all pixels without a click count as background."""
        return any(number == 0 for clicks in self.clicks.values() for number, *_ in clicks)

    def source_ids(self) -> set[str]:
        """Return the ids of the source images, and of the contents of the images."""
        contents = {path: self.sources[path].source_id() for path in self.clicks}
        pattern = self.settings.source_pattern
        return {source_of(path, pattern, content) for path, content in contents.items()} | set(contents.values())

    def __iter__(self) -> Iterator[Annotated]:
        """Yield the images with clicks."""
        marks = self.marks_background
        for path, clicks in self.clicks.items():
            source = self.sources[path]
            try:
                (image, *others) = source.read(self.settings.series, self.settings.channel)
            except (ValueError, OSError) as error:
                raise UserError(f"{path}: {error}") from error
            if others:
                raise UserError(f"{path}: has {len(others) + 1} series; choose one with --series")
            shape = (image.array.shape[1], image.array.shape[2])
            try:
                planes, annotated = click_masks(clicks, len(self.classes), shape, self.radius_px, marks)
            except ValueError as error:
                raise UserError(f"{path}: {error}; correct the table of clicks") from error
            pattern, content = self.settings.source_pattern, source.source_id()
            yield Annotated(path, source_of(path, pattern, content), image, planes, annotated)


def click_masks(
    clicks: Iterable[tuple[int, float, float]],
    classes: int,
    shape: tuple[int, int],
    radius_px: float,
    marks_background: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Plot the discs of clicks.

    Args:
        clicks: Class number (0 is the background), y and x in pixels of each click.
        classes: Number of classes, without the background.
        shape: Height and width of the image, in pixels.
        radius_px: Radius of a disc, in pixels.
        marks_background: Whether only the discs are annotated; if not, all other pixels are background.

    Returns:
        Masks of the classes (L, H, W) bool, and the pixels that are annotated (H, W) bool.

    Raises:
        ValueError: If a click is outside of the image.

    Example:
        >>> planes, annotated = click_masks([(1, 2, 2)], 1, (5, 5), 1.5, marks_background=False)
        >>> int(planes.sum()), bool(annotated.all())
        (9, True)
    """
    discs = np.zeros((classes + 1, *shape), bool)
    for number, y, x in clicks:
        if not (0 <= y < shape[0] and 0 <= x < shape[1]):
            raise ValueError(
                f"the click at y = {y:g}, x = {x:g} is outside of the image, which has {shape[0]} x {shape[1]} pixels"
            )
        discs[number][disk((y, x), radius_px, shape=shape)] = True
    return discs[1:], np.asarray(discs.any(axis=0)) if marks_background else np.ones(shape, bool)


def read_annotations(settings: FitFinderSettings, patch_size: int) -> MaskedImages | ClickedImages:
    """Read the annotated images of `finder fit`.

    Args:
        settings: Settings of the command.
        patch_size: Size of a patch of the model, in pixels.

    Raises:
        UserError: If the images, the masks or the clicks cannot be read.
    """
    if settings.clicks is not None:
        return _read_clicks(settings, patch_size)
    splits = read_annotated_images(settings)
    return MaskedImages(splits)


def _read_clicks(settings: FitFinderSettings, patch_size: int) -> ClickedImages:
    """Read the table of clicks, and find its images."""
    file = Path(str(settings.clicks))
    try:
        # Spreadsheets of some languages separate columns by semicolons.
        separator = ";" if b";" in file.read_bytes().partition(b"\n")[0] else ","
        rows = pyarrow.csv.read_csv(file, parse_options=pyarrow.csv.ParseOptions(delimiter=separator)).to_pylist()
    except FileNotFoundError as error:
        raise UserError(f"--clicks {file}: no such file; check the path") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"--clicks {file}: not a CSV table ({error})") from error
    if not rows:
        raise UserError(f"--clicks {file}: has no row; add a click")
    if missing := [name for name in ("path", "y_px", "x_px") if name not in rows[0]]:
        raise UserError(f"--clicks {file}: has no column {missing[0]}; the columns are path, y_px, x_px and class")
    sources = {source.path: source for source in find_sources(str(settings.dataset))[0]}
    names: dict[str, int] = {BACKGROUND_NAME: 0}
    clicks: dict[str, list[tuple[int, float, float]]] = {}
    for line, row in enumerate(rows, 2):
        path, name = str(row["path"]), str(row.get("class") or STRUCTURE)
        if path not in sources:
            raise UserError(
                f"--clicks {file}: line {line}: no image {path} in {settings.dataset}: {some_of(list(sources))}"
            )
        if not all(isinstance(row[each], int | float) for each in ("y_px", "x_px")):
            raise UserError(f"--clicks {file}: line {line}: y_px and x_px are not numbers; give pixels")
        number = names.setdefault(name, len(names))
        clicks.setdefault(path, []).append((number, float(row["y_px"]), float(row["x_px"])))
    if len(names) == 1:
        raise UserError(f"--clicks {file}: marks the background only; add clicks on structures")
    radius = patch_size / 2 if settings.click_radius_px is None else settings.click_radius_px
    return ClickedImages(tuple(names)[1:], clicks, sources, radius, settings, sha256_file(file))
