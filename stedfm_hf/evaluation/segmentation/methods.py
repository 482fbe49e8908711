"""What is compared: models that segment, and baselines, all asked in one way for the maps of an image."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from stedfm_hf.evaluation.segmentation.baselines import Baseline
from stedfm_hf.evaluation.segmentation.fitting import Folded, fit_on
from stedfm_hf.images import StedImage
from stedfm_hf.inference.fields import fields_of, probability_bands

# The one place that knows where segmenters are loaded.
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
    """From the maps of a model to those of the classes of the data.

    Args:
        order: for each class of the data, the number of the model's; None: the background, which the model lacks.
        note: what a reader must know of it; empty where names are the same.

    Example:
        >>> maps = np.array([[[0.9]], [[0.2]]])
        >>> ClassMatch((None, 1, 0))(maps).round(2).ravel().tolist()
        [0.1, 0.2, 0.9]
    """

    order: tuple[int | None, ...]
    note: str = ""

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Maps of all classes of the data (L, H, W), of those of the model."""
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
    """Finds the map of each class of the data, by its name; by its place where one side has no names.

    A model of one class a pixel may be asked about planes: its background is left out. A model of planes may be asked
    about images of one class a pixel: the background is where no class reaches a half.

    Example:
        >>> named = {"data": "cells", "data_classes": ["background", "rings"], "data_type": "single_label"}
        >>> match_classes("m", ["background", "Rings"], "single_label", **named).order
        (0, 1)
        >>> match_classes("m", ["rings"], "multi_label", **named).order
        (None, 0)
    """
    if target_type == "regression":
        raise UserError(f"model {name}: predicts values, not classes; its maps cannot be scored as masks")
    model, wanted, note = list(classes), list(data_classes), ""
    single, exclusive = target_type == "single_label", data_type == "single_label"
    # Only one of the two knows a background: it is set aside, and the others are compared.
    lacks = exclusive and not single and _is_background(wanted[0])
    spare = single and not exclusive and _is_background(model[0])
    if exclusive and not single and not lacks:
        raise UserError(
            f"model {name}: its classes may overlap, while those of {data} exclude each other and have no background; "
            "evaluate a model of one class a pixel"
        )
    ours, theirs = wanted[lacks:], model[spare:]
    places = {_key(each): number for number, each in enumerate(theirs)}
    if sorted(places) == sorted(map(_key, ours)) and len(places) == len(theirs):
        order = [places[_key(each)] for each in ours]
    elif len(ours) == len(theirs) and (_all_unnamed(ours) or _all_unnamed(theirs)):
        order = list(range(len(ours)))
        pairs = ", ".join(f"{one} = {other}" for one, other in zip(theirs, ours, strict=True))
        note = f"The classes of {name} were taken by their order, as one side has no names: {pairs}."
    else:
        raise UserError(
            f"model {name}: knows the classes {', '.join(model)}, and {data} has {', '.join(wanted)}; name those of "
            "the data as the model does (--classes), or evaluate another model"
        )
    if lacks:
        note += f" The classes of {name} may overlap: a pixel is background where none reaches a half."
    if spare:
        note += f" The classes of {name} exclude each other, those of the data may overlap."
    found: list[int | None] = [number + spare for number in order]
    return ClassMatch((*([None] * lacks), *found), note.strip())


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _is_background(name: str) -> bool:
    return _key(name) == BACKGROUND


def _all_unnamed(names: Sequence[str]) -> bool:
    """Whether nobody has named the classes; the background has its name by itself."""
    others = [name for name in names if not _is_background(name)]
    return bool(others) and all(_UNNAMED.fullmatch(name.strip()) for name in others)


@dataclass(eq=False, kw_only=True)
class Method(ABC):
    """A model or baseline that gives maps of images.

    Args:
        key: what it is called in commands and tables.
        name: what it is called on the page.
        kind: a model that was asked for, or a baseline.
        weights_sha256: of its weights, if it has some.
        note: what a reader must know of it.
    """

    key: str
    name: str
    kind: Literal["model", "baseline"]
    weights_sha256: str | None = None
    note: str = ""

    def order(self, data: AnnotatedImages) -> Sequence[int]:
        """In which order images are best asked for."""
        return range(len(data))

    def prepare(self) -> Self:
        """Do what has to be done once before images are asked for; a run that only takes up scores does without."""
        return self

    @abstractmethod
    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Probabilities of the classes of the data (L, H, W) for an image of it.

        Raises:
            ValueError: the image cannot be read, or not be segmented.
        """


@dataclass(eq=False, kw_only=True)
class ModelMethod(Method):
    """A model: its maps are those of `stedfm segment`."""

    segmenter: Segmenter = field(repr=False)
    match: ClassMatch
    batch_size: int = 8
    scaling: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.scaling = scaling_of(self.segmenter, None, None)

    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Segment the image in blended tiles."""
        config = self.segmenter.model.config
        (found,) = fields_of(self._checked(data.stored(number)), self.segmenter, self.scaling)
        bands = probability_bands(
            self.segmenter,
            found,
            tile_size=config.image_size,
            tile_overlap=default_tile_overlap(config.image_size, config.patch_size),
            batch_size=self.batch_size,
        )
        return self.match(np.concatenate([band for _, band in bands], axis=1))

    def check(self, data: AnnotatedImages) -> None:
        """Refuses images of other channels than the model's, by the first one.

        Raises:
            UserError: says how many there are.
        """
        self._checked(data.stored(0))

    def _checked(self, image: StedImage) -> StedImage:
        """The image, or the channel of it that the processor takes."""
        channel, wanted = self.segmenter.processor.channel, self.segmenter.model.config.num_channels
        if channel is not None and wanted == 1 and 0 <= channel < len(image.array):
            name = image.channel_names[channel]
            image = replace(image, array=image.array[channel : channel + 1], channel_names=(name,))
        if len(image.array) != wanted:
            raise UserError(
                f"{Path(image.source).name}: the number of its channels is {len(image.array)}, and {self.name} takes "
                f"{wanted}; choose one (--channel), or evaluate another model"
            )
        return image


@dataclass(eq=False, kw_only=True)
class BaselineMethod(Method):
    """A baseline.

    Args:
        baseline: which.
        train: what it is fitted on, when it is first needed; None: it is fitted already.
        seed: of the draw of what is fitted on, where there is too much.
    """

    baseline: Baseline = field(repr=False)
    train: AnnotatedImages | None = field(repr=False)
    seed: int = 0

    def prepare(self) -> Self:
        """Fit it."""
        if self.train is not None:
            fit_on([self.baseline], self.train, seed=self.seed)
            self.train = None
        return self

    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Ask it."""
        return self.baseline.predict(data.image(number))


@dataclass(eq=False, kw_only=True)
class FoldedMethod(Method):
    """A baseline that is fitted on the other folds of the images it is asked about."""

    folded: Folded = field(repr=False)

    def order(self, data: AnnotatedImages) -> Sequence[int]:
        """Fold by fold."""
        return self.folded.order

    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Ask it, fitted anew where a fold begins."""
        return self.folded.predict(number)


def load_models(
    models: Sequence[str | Path | ModelSource],
    data: AnnotatedImages,
    *,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = 8,
) -> list[ModelMethod]:
    """Loads models and checks that they can be asked about these images."""
    found: list[ModelMethod] = []
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
        if any(each.key == name for each in found):
            if any(each.weights_sha256 == segmenter.weights_sha256 for each in found):
                raise UserError(f"model {source.given}: is named twice")
            # Two folders of one name are told apart by what is in them.
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
        found.append(method)
    return found
