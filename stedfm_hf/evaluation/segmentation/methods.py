"""Segmentation methods with one interface: models and baselines."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from stedfm_hf.evaluation.segmentation.baselines import Baseline
from stedfm_hf.evaluation.segmentation.fitting import CrossValidatedBaseline, fit_baselines
from stedfm_hf.images import StedImage
from stedfm_hf.inference.fields import fields_of, probability_bands
from stedfm_hf.inference.loading import Loaded
from stedfm_hf.inference.one_image import one_channel
from stedfm_hf.inference.segmenter import Segmenter, load_segmenter
from stedfm_hf.inference.stepwise import scaling_of
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.annotated.stored import BACKGROUND
from stedfm_hf.modeling.blending_stedfm import default_tile_overlap
from stedfm_hf.runs import UserError
from stedfm_hf.weights.models import ModelSource, find_model

_UNNAMED = re.compile(r"(label_|class )\d+", re.IGNORECASE)


@dataclass(frozen=True)
class ClassMatch:
    """Mapping from the classes of a model to the classes of the data.

    Attributes:
        order: Number of the model class for each class of the data; None is the background that the model lacks.
        note: Note for the report; empty if the names are the same.

    Example:
        >>> maps = np.array([[[0.9]], [[0.2]]])
        >>> ClassMatch((None, 1, 0))(maps).round(2).ravel().tolist()
        [0.1, 0.2, 0.9]
    """

    order: tuple[int | None, ...]
    note: str = ""

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Convert the maps of the model to maps of the classes of the data (L, H, W).

        Args:
            maps: Maps of the classes of the model (M, H, W).
        """
        return np.stack([1 - maps.max(axis=0) if number is None else maps[number] for number in self.order])


def match_classes(
    name: str,
    classes: Sequence[str],
    target_type: str,
    *,
    data: str,
    data_classes: Sequence[str],
    data_type: str,
) -> ClassMatch:
    """Match the classes of a model to the classes of the data by name, or by order if either has no names.

    The background is ignored if only the model has one. If only the data has one, pixels are background where no class
    of the model has a probability of one half.

    Args:
        name: Name of the model.
        classes: Names of the classes of the model.
        target_type: Target type of the model.
        data: Name of the data set.
        data_classes: Names of the classes of the data.
        data_type: Target type of the data.

    Returns:
        The mapping.

    Raises:
        UserError: If the classes do not match.

    Example:
        >>> named = {"data": "cells", "data_classes": ["background", "rings"], "data_type": "single_label"}
        >>> match_classes("m", ["background", "Rings"], "single_label", **named).order
        (0, 1)
        >>> match_classes("m", ["rings"], "multi_label", **named).order
        (None, 0)
    """
    if target_type == "regression":
        raise UserError(
            f"model {name}: predicts values, not classes, and cannot be scored on masks. Choose a segmentation model"
        )
    model, required, note = list(classes), list(data_classes), ""
    single, exclusive = target_type == "single_label", data_type == "single_label"
    # If only one of them has a background, the other classes are compared.
    lacks = exclusive and not single and _is_background(required[0])
    spare = single and not exclusive and _is_background(model[0])
    if exclusive and not single and not lacks:
        raise UserError(
            f"model {name}: its classes may overlap, but the classes of {data} are exclusive and have no background. "
            "Choose a single-label model"
        )
    of_data, of_model = required[lacks:], model[spare:]
    numbers = {_key(each): number for number, each in enumerate(of_model)}
    if sorted(numbers) == sorted(map(_key, of_data)) and len(numbers) == len(of_model):
        order = [numbers[_key(each)] for each in of_data]
    elif len(of_data) == len(of_model) and (_all_unnamed(of_data) or _all_unnamed(of_model)):
        order = list(range(len(of_data)))
        pairs = ", ".join(f"{one} = {other}" for one, other in zip(of_model, of_data, strict=True))
        note = f"The classes of {name} are matched by order, because model or data have no class names: {pairs}."
    else:
        raise UserError(
            f"model {name}: has the classes {', '.join(model)}, but {data} has {', '.join(required)}. Use the "
            "class names "
            "of the model (--classes), or choose another model"
        )
    if lacks:
        note += f" The classes of {name} may overlap: pixels are background where no probability reaches one half."
    if spare:
        note += f" The classes of {name} are exclusive, those of the data may overlap."
    shifted: list[int | None] = [number + spare for number in order]
    return ClassMatch((*([None] * lacks), *shifted), note.strip())


def _key(name: str) -> str:
    """Normalise a class name."""
    return " ".join(name.split()).casefold()


def _is_background(name: str) -> bool:
    """Return whether a class is the background."""
    return _key(name) == BACKGROUND


def _all_unnamed(names: Sequence[str]) -> bool:
    """Return whether all classes except the background have default names."""
    others = [name for name in names if not _is_background(name)]
    return bool(others) and all(_UNNAMED.fullmatch(name.strip()) for name in others)


@dataclass(eq=False, kw_only=True)
class Method(ABC):
    """Model or baseline that predicts maps of images.

    Attributes:
        key: Identifier in commands and tables.
        name: Name in the report.
        kind: "model", "zero-shot" (mask of an encoder that is not trained to segment) or "baseline".
        weights_sha256: SHA-256 checksum of the weights; None without weights.
        note: Note for the report; may be empty.
        one_foreground: Whether every class gets the same foreground mask. Classes may then overlap, even if those of
            the data are exclusive.
    """

    key: str
    name: str
    kind: Literal["model", "zero-shot", "baseline"]
    weights_sha256: str | None = None
    note: str = ""
    one_foreground: bool = False

    def predicts_exclusive(self, data: AnnotatedImages) -> bool:
        """Return whether each pixel belongs to its most probable class.

        Args:
            data: Annotated images.
        """
        return data.target_type == "single_label" and not self.one_foreground

    def order(self, data: AnnotatedImages) -> Sequence[int]:
        """Return the numbers of the images in the most efficient order.

        Args:
            data: Annotated images.
        """
        return range(len(data))

    def prepare(self) -> Self:
        """Prepare the method before the first image; not needed if all scores are cached."""
        return self

    @abstractmethod
    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Predict the probabilities of the classes of the data (L, H, W) for an image.

        Args:
            data: Annotated images.
            number: Number of the image.

        Raises:
            ValueError: If the image cannot be read or segmented.
        """


@dataclass(eq=False, kw_only=True)
class ModelMethod(Method):
    """Segmentation model; its maps are those of `stedfm segment`.

    Attributes:
        segmenter: Loaded model.
        match: Mapping from the classes of the model to those of the data.
        batch_size: Number of tiles in a forward pass.
        scaling: Scaling of the images.
    """

    segmenter: Segmenter = field(repr=False)
    match: ClassMatch
    batch_size: int = 8
    scaling: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.scaling = scaling_of(self.segmenter, None, None)

    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Segment the image in blended tiles."""
        config = self.segmenter.model.config
        image = with_channels_of(self.segmenter, data.stored(number))
        (field_of_view,) = fields_of(image, self.segmenter, self.scaling)
        bands = probability_bands(
            self.segmenter,
            field_of_view,
            tile_size=config.image_size,
            tile_overlap=default_tile_overlap(config.image_size, config.patch_size),
            batch_size=self.batch_size,
        )
        return self.match(np.concatenate([band for _, band in bands], axis=1))

    def check(self, data: AnnotatedImages) -> None:
        """Check the number of channels of the first image.

        Args:
            data: Annotated images.

        Raises:
            UserError: If the model needs another number of channels.
        """
        with_channels_of(self.segmenter, data.stored(0))


def with_channels_of(loaded: Loaded, image: StedImage) -> StedImage:
    """Return an image, or the channel of it that the processor of a model selects.

    Args:
        loaded: Model.
        image: Image.

    Raises:
        UserError: If the model needs another number of channels.
    """
    channel, num_channels = loaded.processor.channel, loaded.model.config.num_channels
    if channel is not None and num_channels == 1 and 0 <= channel < len(image.array):
        image = one_channel(image, channel)
    if len(image.array) != num_channels:
        raise UserError(
            f"{Path(image.source).name}: has {len(image.array)} channels, but {loaded.name} needs {num_channels}. "
            "Select one with --channel, or choose another model"
        )
    return image


@dataclass(eq=False, kw_only=True)
class BaselineMethod(Method):
    """Baseline that is fitted on training images.

    Attributes:
        baseline: Baseline.
        train: Training images for fitting before the first prediction; None if the baseline is fitted.
        seed: Random seed of the sample of training images.
    """

    baseline: Baseline = field(repr=False)
    train: AnnotatedImages | None = field(repr=False)
    seed: int = 0

    def prepare(self) -> Self:
        """Fit the baseline."""
        if self.train is not None:
            fit_baselines([self.baseline], self.train, seed=self.seed)
            self.train = None
        return self

    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Predict the maps of an image."""
        return self.baseline.predict(data.image(number))


@dataclass(eq=False, kw_only=True)
class CrossValidatedMethod(Method):
    """Baseline that is fitted on the other folds for each image.

    Attributes:
        cross_validated: Baseline with its folds.
    """

    cross_validated: CrossValidatedBaseline = field(repr=False)

    def order(self, data: AnnotatedImages) -> Sequence[int]:
        """Return the numbers of the images fold by fold."""
        return self.cross_validated.order

    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Predict the maps of an image; the baseline is fitted again for each fold."""
        return self.cross_validated.predict(number)


def load_models(
    models: Sequence[str | Path | ModelSource],
    data: AnnotatedImages,
    *,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = 8,
) -> list[ModelMethod]:
    """Load models and match their classes to the data.

    Args:
        models: Folders or Hub ids of segmentation models.
        data: Annotated images.
        device: Device of the models.
        precision: Floating-point type of the models.
        batch_size: Number of tiles in a forward pass.

    Raises:
        UserError: If a model cannot be loaded, is named twice, or does not match the data.
    """
    loaded: list[ModelMethod] = []
    for source in [find_model(model, head="ForSemanticSegmentation") for model in models]:
        segmenter = load_segmenter(source, device=device, precision=precision)
        match = match_classes(
            segmenter.name,
            segmenter.classes,
            segmenter.model.config.target_type,
            data=data.name,
            data_classes=data.classes,
            data_type=data.target_type,
        )
        name = segmenter.name
        if any(each.key == name for each in loaded):
            if any(each.weights_sha256 == segmenter.weights_sha256 for each in loaded):
                raise UserError(f"model {source.given}: is named twice; name each model once")
            # Models of the same name are distinguished by their weights.
            name = f"{name} ({segmenter.weights_sha256[:6]})"
        method = ModelMethod(
            key=name,
            name=name,
            kind="model",
            weights_sha256=segmenter.weights_sha256,
            note=match.note,
            segmenter=segmenter,
            match=match,
            batch_size=batch_size,
        )
        method.check(data)
        loaded.append(method)
    return loaded
