"""Find the models of the app before torch and Gradio are imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.app.settings import AppSettings
from stedfm_hf.data.sources import is_dataset
from stedfm_hf.discovery.cluster import COMMAND, REPORT
from stedfm_hf.generation.names import check_pipeline_name
from stedfm_hf.runs import Manifest, UserError, manifest_path
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
    """Find the models of the settings, and check that the index and the groups exist.

    Raises:
        UserError: If a model, index, tree or pipeline does not exist, or a model has not the head for its task.
    """
    index = settings.index
    if index is not None and not Path(index).exists() and not is_dataset(index):
        raise UserError(f"index {index}: no such file or folder; give a folder of images or a table of `stedfm embed`")
    if missing := next((folder for folder in settings.finder if not Path(folder).is_dir()), None):
        raise UserError(f"finder {missing}: no such folder; give the output of `stedfm finder fit`")
    if settings.groups is not None:
        _check_groups(Path(settings.groups))
    if settings.generator is not None:
        check_pipeline_name(settings.generator)
    classifier, segmenter = settings.classifier, settings.segmenter
    return ModelSources(
        classifier=None if classifier is None else find_model(classifier, head="ForImageClassification"),
        segmenter=None if segmenter is None else find_model(segmenter, head="ForSemanticSegmentation"),
        model=find_model(settings.model),
    )


def _check_groups(folder: Path) -> None:
    """Refuse a folder without the finished page of a tree.

    Raises:
        UserError: If `stedfm cluster` has not written the folder.
    """
    record = manifest_path(folder, folder=True)
    is_tree = (folder / REPORT).is_file() and record.is_file() and Manifest.load(record).command == COMMAND
    if not is_tree:
        raise UserError(f"groups {folder}: holds no tree; give a finished folder of `stedfm cluster`")
