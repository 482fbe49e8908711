"""Model of a server: annotated patches, fits, score maps and regions, by the functions of `finder fit` and `find`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.acquisition.annotations import BACKGROUND_NAME, STRUCTURE, Annotated, click_masks
from stedfm_hf.acquisition.collecting import collect_examples, prepare_field, scale_field
from stedfm_hf.acquisition.examples import Examples, join
from stedfm_hf.acquisition.finder_files import StoredFinder, make_record
from stedfm_hf.acquisition.finders import FINDERS
from stedfm_hf.acquisition.score_maps import score_map
from stedfm_hf.acquisition.selection import RegionChoice, cell_size, check_finite, ranked_regions, region_columns
from stedfm_hf.acquisition.serving.errors import RequestError
from stedfm_hf.acquisition.serving.messages import FieldScores, FoundRegion
from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.acquisition.stage import Stage
from stedfm_hf.images import StedImage
from stedfm_hf.inference.limits import StoppedError
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.inference.stepwise import scaling_of
from stedfm_hf.interpretability.fields import Tiles, tiles_of
from stedfm_hf.weights.models import ModelSource

MOST_PER_IMAGE, MOST_PATCHES = 20_000, 100_000
"""Largest number of patches that are kept of one image, and that a finder is fitted to."""
SEED = 42
Click = tuple[float, float, str]


@dataclass(frozen=True)
class Annotation:
    """Annotation of an image: a mask or clicks.

    Attributes:
        mask: Numbers of the classes (1, H, W), 0 is the background; or one plane for each class (L, H, W).
        clicks: y and x in pixels, and the class, of each click.
        radius_px: Radius of the disc that a click marks, in pixels; None is half a patch.
    """

    mask: np.ndarray | None
    clicks: Sequence[Click]
    radius_px: float | None

    @property
    def marks_background(self) -> bool:
        """Whether the background was clicked; if not, all pixels without a click or a class are background."""
        return any(name == BACKGROUND_NAME for *_, name in self.clicks)

    def class_names(self, given: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the classes: the given ones, or those of the clicks in their order.

        Args:
            given: Names that the client gave.
        """
        clicked = dict.fromkeys(name for *_, name in self.clicks if name != BACKGROUND_NAME)
        names = tuple(given) or tuple(clicked) or (STRUCTURE,)
        if len(set(names)) < len(names) or BACKGROUND_NAME in names or not all(names):
            raise RequestError(422, "the names of the classes are empty, repeated or background; give different ones")
        return names

    def planes(
        self, classes: tuple[str, ...], shape: tuple[int, int], patch_size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks of the classes (L, H, W) bool, and the pixels that are annotated (H, W) bool.

        Args:
            classes: Names of the classes.
            shape: Height and width of the image, in pixels.
            patch_size: Size of a patch, in pixels.

        Raises:
            RequestError: If the mask or the clicks do not fit the image or the classes.
        """
        if (self.mask is None) == (not self.clicks):
            raise RequestError(422, "the annotation must have a mask or clicks; send one of them")
        if self.mask is not None:
            return _mask_planes(self.mask, classes, shape), np.ones(shape, bool)
        numbers = {BACKGROUND_NAME: 0} | {name: number for number, name in enumerate(classes, 1)}
        if unknown := [name for *_, name in self.clicks if name not in numbers]:
            raise RequestError(422, f"the class {unknown[0][:100]!r} of a click is not a class of the finder")
        radius = patch_size / 2 if self.radius_px is None else self.radius_px
        found = [(numbers[name], y, x) for y, x, name in self.clicks]
        try:
            return click_masks(found, len(classes), shape, radius, self.marks_background)
        except ValueError as error:
            raise RequestError(422, f"{error}; correct the clicks") from error


@dataclass(frozen=True)
class Wanted:
    """Regions that a client wants, as the options of `find`.

    Attributes:
        count: Largest number of regions of a class.
        min_score: Smallest score; None uses that of the finder.
        size_px: Height and width of a region, in pixels; None is the crop size of the model.
        size_um: The same in µm; None uses `size_px`.
        min_distance_px: Smallest distance of the centres of two regions along an axis, in pixels; None is their size.
        stage: Matrix of the stage (2, 3), or None.
    """

    count: int
    min_score: float | None = None
    size_px: float | None = None
    size_um: float | None = None
    min_distance_px: float | None = None
    stage: np.ndarray | None = None


@dataclass(frozen=True)
class Engine:
    """Encoder of a server, and its tiles.

    Attributes:
        encoder: Encoder.
        tiles: Tiles of images.
        scaling: Scaling of intensities.
        settings: Settings of the server.
    """

    encoder: Encoder
    tiles: Tiles
    scaling: dict[str, Any]
    settings: ServeSettings

    @classmethod
    def load(cls, settings: ServeSettings, model: ModelSource | None = None) -> Engine:
        """Load the model.

        Args:
            settings: Settings of the server.
            model: Model that was found; None finds that of the settings.

        Raises:
            UserError: If the model or the backend is not available.
        """
        encoder = load_encoder(
            model or settings.model, device=settings.device, precision=settings.precision, backend=settings.backend
        )
        tiles = tiles_of(encoder, settings.tile_size, settings.tile_overlap, settings.batch_size)
        return cls(encoder, tiles, scaling_of(encoder, None, None), settings)

    def about(self) -> dict[str, Any]:
        """Describe the model."""
        config = self.encoder.model.config
        return {
            "name": self.encoder.name,
            "weights_sha256": self.encoder.weights_sha256,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "num_channels": config.num_channels,
            "backend": self.settings.backend,
            "precision": self.encoder.precision,
            "device": str(self.encoder.model.device),
        }

    def patches(
        self, image: StedImage, annotation: Annotation, classes: tuple[str, ...], source: int, *, rotations: bool
    ) -> Examples:
        """Embed the patches of an annotated image.

        Args:
            image: Image.
            annotation: Its annotation.
            classes: Names of the classes.
            source: Number of the image.
            rotations: Whether the image is also used rotated by 90, 180 and 270 degrees.

        Raises:
            RequestError: If the image does not fit the model, or the annotation does not fit the image.
        """
        shape = (image.array.shape[1], image.array.shape[2])
        planes, annotated = annotation.planes(classes, shape, self.encoder.model.config.patch_size)
        field = prepare_field(
            self.encoder, Annotated("the image", str(source), image, planes, annotated), self.scaling
        )
        how: dict[str, Any] = {"rotations": rotations, "seed": SEED}
        found = collect_examples(self.encoder, self.tiles, [(field, source)], classes, **how)
        if annotation.marks_background:
            found.needs_background()
        return found.part(MOST_PER_IMAGE, np.random.default_rng(SEED))

    def fit(self, method: str, parts: list[Examples], *, rotations: bool) -> StoredFinder:
        """Fit a finder to annotated images.

        Args:
            method: Method.
            parts: Annotated patches of each image.
            rotations: Whether the images were also used rotated, for the record.

        Raises:
            UserError: If a class has no patch, or the method needs a background and there is none.
        """
        rng = np.random.default_rng(SEED)
        examples = join([each.part(MOST_PATCHES // len(parts), rng) for each in parts])
        finder = FINDERS[method].fit(examples, seed=SEED)
        record = make_record(self.encoder, examples, "default", self.settings.model, self.scaling)
        counts = {"rotations": rotations, "images": len(parts), "source_images": len(parts)}
        return StoredFinder(finder, record | counts | {"channel": None, "validation": None})

    def score(self, stored: StoredFinder, image: StedImage) -> tuple[Fact, FieldScores]:
        """Compute the score maps of a field.

        Args:
            stored: Finder.
            image: Field.

        Returns:
            Facts about the image, and the maps.

        Raises:
            RequestError: If the finder is of another model, or the image does not fit the model.
        """
        if stored.record["weights_sha256"] != self.encoder.weights_sha256:
            raise RequestError(409, "the finder was fitted with another model; start the server with it, or fit again")
        try:
            fact, pixels = scale_field(self.encoder, image, stored.record["scaling"])
            values = score_map(stored.finder, self.encoder, self.tiles, pixels)
            check_finite(values)
        except StoppedError:
            raise
        except ValueError as error:
            raise RequestError(400, f"the image: {error}") from error
        return fact, FieldScores(values, stored.finder.classes, cell_size(fact, pixels, self.tiles.patch_size))

    def regions(self, stored: StoredFinder, image: StedImage, wanted: Wanted) -> tuple[list[FoundRegion], str | None]:
        """Find the regions of a field to image next.

        Args:
            stored: Finder.
            image: Field.
            wanted: Regions that the client wants.

        Returns:
            Regions, and why there are none.

        Raises:
            RequestError: If the finder is of another model, the image does not fit the model, or the size of a region
                is in µm and the pixel size is not known.
        """
        fact, maps = self.score(stored, image)
        lowest = {
            name: low if wanted.min_score is None else wanted.min_score
            for name, low in zip(maps.classes, stored.finder.min_scores, strict=True)
        }
        size = float(self.encoder.model.config.image_size) if wanted.size_px is None else wanted.size_px
        choice = RegionChoice(lowest, wanted.count, size, wanted.size_um, wanted.min_distance_px)
        if wanted.size_um is not None and fact["pixel_size_nm"] is None:
            raise RequestError(422, "the image has no pixel size; send pixel_size_nm, or region_size_px")
        stage = None if wanted.stage is None else Stage({}, wanted.stage)
        found = []
        for rank, (label, region) in ranked_regions(maps.values, maps.classes, choice, fact, maps.cell_px).items():
            y, x = region.centre
            position = None if stage is None else stage.position_um("", y=y, x=x)
            found.append(FoundRegion(**region_columns(rank, label, region, fact, position)))
        return found, None if found else choice.why_none(maps.values, maps.classes)


def _mask_planes(mask: np.ndarray, classes: tuple[str, ...], shape: tuple[int, int]) -> np.ndarray:
    """Return the masks of the classes (L, H, W) bool of an array of a request."""
    if mask.shape[1:] != shape:
        raise RequestError(
            422,
            f"the mask has {mask.shape[1]} x {mask.shape[2]} pixels, and the image {shape[0]} x {shape[1]}; send a "
            "mask of the same size",
        )
    if mask.dtype.kind not in "bui" or mask.min() < 0:
        raise RequestError(422, "the mask holds numbers that are not classes; send integers from 0")
    if len(mask) == len(classes) and len(classes) > 1:
        return mask > 0
    if len(mask) != 1 or mask.max() > len(classes):
        found = f"has {len(mask)} planes" if len(mask) != 1 else f"holds the numbers 0 to {mask.max()}"
        there = "there is one class" if len(classes) == 1 else f"there are {len(classes)} classes"
        raise RequestError(
            422, f"the mask {found}, but {there}; name them with classes=[...] when you create the finder"
        )
    return np.stack([mask[0] == number for number in range(1, len(classes) + 1)])
