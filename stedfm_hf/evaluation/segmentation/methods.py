"""What is compared: models that segment, and baselines, all asked in one way for the maps of an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from stedfm_hf.evaluation.segmentation.baselines import Baseline
from stedfm_hf.evaluation.segmentation.class_matching import ClassMatch, match_classes
from stedfm_hf.evaluation.segmentation.crossvalidation import Folded
from stedfm_hf.evaluation.segmentation.fitting import fit_on
from stedfm_hf.images import StedImage
from stedfm_hf.inference.fields import fields_of, probability_bands

# The one place that knows where segmenters are loaded.
from stedfm_hf.inference.segmenter import Segmenter, load_segmenter
from stedfm_hf.inference.stepwise import chosen_scaling
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.modeling.blending_stedfm import default_halo
from stedfm_hf.runs import UserError
from stedfm_hf.weights.models import ModelSource, find_model


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
        self.scaling = chosen_scaling(self.segmenter, None, None)

    def maps(self, data: AnnotatedImages, number: int) -> np.ndarray:
        """Segment the image in blended windows."""
        config = self.segmenter.model.config
        (found,) = fields_of(self._checked(data.stored(number)), self.segmenter, self.scaling)
        bands = probability_bands(
            self.segmenter,
            found,
            window=config.image_size,
            halo=default_halo(config.image_size, config.patch_size),
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
    """Loads models and checks that they can be asked about these images.

    Args:
        models: folders or Hub ids.
        data: what they are asked about.
        device: where they run.
        precision: they run in.
        batch_size: windows in one forward pass.

    Raises:
        UserError: a model cannot be loaded, is named twice, or its classes or channels are not those of the data.
    """
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
