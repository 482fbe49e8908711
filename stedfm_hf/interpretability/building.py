"""Make the explainer of a method from the settings of `stedfm explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from stedfm_hf.data.sources import Source
from stedfm_hf.inference.loading import Classifier, Encoder, Loaded, load_encoder, names_of
from stedfm_hf.inference.preparation import Preparation
from stedfm_hf.interpretability.components import components_in, fit_components
from stedfm_hf.interpretability.explainers import (
    AttentionExplainer,
    CorrespondenceExplainer,
    Explainer,
    LogitExplainer,
    PcaExplainer,
    SimilarityExplainer,
    patch_tokens,
)
from stedfm_hf.interpretability.fields import Tiles
from stedfm_hf.interpretability.patch_pca import PatchPca
from stedfm_hf.interpretability.settings import ExplainSettings
from stedfm_hf.runs import UserError
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.weights.models import ModelSource


@dataclass(frozen=True)
class Given:
    """What the settings of `explain` name.

    Attributes:
        settings: Settings.
        method: Method; `settings.method` is None if the model decided it.
        folder: Output folder.
        sources: Sources of the images.
        skipped: Number of skipped files by suffix.
        model: Model.
        other: Model to compare it with.
        reference: Sources that the reference image names.
    """

    settings: ExplainSettings
    method: str
    folder: Path
    sources: Sequence[Source]
    skipped: dict[str, int]
    model: ModelSource
    other: ModelSource | None = None
    reference: Sequence[Source] = ()

    @property
    def needs_logits(self) -> bool:
        """Whether the method needs a classifier."""
        return self.method == "logit" or self.settings.aggregate == "gradient"


def build_explainer(given: Given, loaded: Loaded, tiles: Tiles, prepare: Preparation) -> Explainer:
    """Make the explainer of a method, and check that it fits the model.

    Args:
        given: What the settings name.
        loaded: Model: a classifier if the method needs logits, else an encoder.
        tiles: Tiles of the images.
        prepare: Function that reads and scales a source.

    Raises:
        UserError: If a setting does not fit the model, or the reference image cannot be read.
    """
    explainer = _build(given, loaded, tiles, prepare)
    explainer.check()
    return explainer


def _build(given: Given, loaded: Loaded, tiles: Tiles, prepare: Preparation) -> Explainer:
    """Make the explainer of a method."""
    settings, encoder = given.settings, cast(Encoder, loaded)
    match given.method:
        case "logit":
            classifier = cast(Classifier, loaded)
            return LogitExplainer(classifier, tiles, label_of(classifier, settings.label))
        case "attention":
            aggregate = REFERENCE if settings.protocol == REFERENCE else settings.aggregate or "mean"
            label = label_of(cast(Classifier, loaded), settings.label) if given.needs_logits else None
            return AttentionExplainer(loaded, tiles, aggregate, settings.block, settings.head, settings.query, label)
        case "similarity":
            other = load_encoder(given.other, device=settings.device, precision=settings.precision)
            return SimilarityExplainer(encoder, other, tiles)
        case "correspondence":
            return _correspondence(given, encoder, tiles, prepare)
        case _:
            return PcaExplainer(encoder, tiles, _components(given, encoder, tiles, prepare))


def label_of(classifier: Classifier, label: str | int | None) -> int | None:
    """Return the index of a class.

    Args:
        classifier: Classifier.
        label: Name or index of the class; None is the predicted one, which is not known yet.

    Raises:
        UserError: If there is no such class, or a regression predicts more than one value and none is named.
    """
    names = names_of(classifier, "labels")
    if label is None:
        if classifier.model.config.target_type == "regression" and len(names) > 1:
            raise UserError(f"model {classifier.name}: predicts {', '.join(names)}; choose one with --label")
        return None
    if str(label) in names:
        return names.index(str(label))
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    raise UserError(f"label {label!r} is unknown; choose {', '.join(names)}, or a number from 0 to {len(names) - 1}")


def _correspondence(given: Given, encoder: Encoder, tiles: Tiles, prepare: Preparation) -> CorrespondenceExplainer:
    """Read the reference image and compute its tokens."""
    name = given.settings.reference_image
    if len(given.reference) != 1:
        raise UserError(f"reference image {name}: names {len(given.reference)} images; give one file")
    prepared = prepare(given.reference[0])
    if prepared.error is not None:
        raise UserError(f"reference image {name}: {prepared.error}")
    if len(prepared.images) != 1:
        raise UserError(
            f"reference image {name}: holds {len(prepared.images)} series or channels; choose one with --series and "
            "--channel"
        )
    ((fact, pixels),) = prepared.images
    height, width = pixels.shape[1:]
    tokens = patch_tokens(encoder, tiles, pixels)
    return CorrespondenceExplainer(encoder, tiles, tokens, pixels, (fact["height"] / height, fact["width"] / width))


def _components(given: Given, encoder: Encoder, tiles: Tiles, prepare: Preparation) -> PatchPca:
    """Return the components: those of `--components`, those of the run that is resumed, or new ones."""
    settings: Any = given.settings
    if settings.components is not None:
        return PatchPca.load(settings.components)
    if components_in(given.folder) and not settings.overwrite:
        return PatchPca.load(given.folder)
    mode = "foreground" if settings.foreground == "otsu" else "none"
    return fit_components(given.sources, prepare, encoder, tiles, mode)
