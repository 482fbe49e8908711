"""Find the models of the app before torch and Gradio are imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.app.settings import AppSettings
from stedfm_hf.data.sources import is_dataset
from stedfm_hf.runs import UserError
from stedfm_hf.weights.models import ModelSource, find_model


@dataclass(frozen=True)
class ModelSources:
    """Models of the settings that were found, before they are loaded.

    Attributes:
        model: Encoder, or model that holds one.
        classifier: Classifier, or None.
        segmenter: Segmenter, or None.
    """

    model: ModelSource
    classifier: ModelSource | None
    segmenter: ModelSource | None


def find_models(settings: AppSettings) -> ModelSources:
    """Find the models of the settings, and check that the index exists.

    Raises:
        UserError: If a model does not exist, has not the head for its task, or there is no such index.
    """
    index = settings.index
    if index is not None and not Path(index).exists() and not is_dataset(index):
        raise UserError(f"index {index}: no such file or folder; give a folder of images or a table of `stedfm embed`")
    classifier, segmenter = settings.classifier, settings.segmenter
    return ModelSources(
        classifier=None if classifier is None else find_model(classifier, head="ForImageClassification"),
        segmenter=None if segmenter is None else find_model(segmenter, head="ForSemanticSegmentation"),
        model=find_model(settings.model),
    )
