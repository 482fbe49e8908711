"""The card of a classifier, or of a regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.training.classification.feeding import Side
from stedfm_hf.training.classification.figures import CONFUSION, SCATTER
from stedfm_hf.training.classification.outcome import PREDICTIONS_FILE
from stedfm_hf.training.finetuning import card
from stedfm_hf.training.finetuning.card import count_parameters
from stedfm_hf.training.finetuning.folder import Folder


def write_card(folder: Folder, summary: Mapping[str, Any], sides: Mapping[str, Side]) -> None:
    """Writes `README.md`; see :func:`stedfm_hf.training.finetuning.card.write_card`.

    Args:
        folder: of the best model.
        summary: figures of all seeds.
        sides: what the figures are of.
    """
    network = StedFmForImageClassification.from_pretrained(folder.path)
    train = folder.splits.train
    best = next(run for run in summary["runs"] if run["seed"] == summary["best_seed"])
    recall = best["test" if "test" in best else "validation"].get("recall_per_class") or ()
    card.write_card(
        folder,
        summary,
        sides,
        parameters={"encoder": count_parameters(network.stedfm), "head": count_parameters(network.classifier)},
        config=network.config.to_dict(),
        drawn=("labels_per_class", "label_fraction"),
        pictures=(CONFUSION, SCATTER),
        files={PREDICTIONS_FILE: "what this model says of every validation and test image"},
        task=train.task,
        classes=train.classes,
        target=None if train.classes else (folder.recipe.get("target") or "label"),
        of_class=dict(zip(train.classes, recall, strict=False)),
    )
