"""The card of a segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.training.finetuning import card
from stedfm_hf.training.finetuning.card import count_parameters
from stedfm_hf.training.finetuning.folder import Folder
from stedfm_hf.training.segmentation.feeding import Side
from stedfm_hf.training.segmentation.figures import EXAMPLES
from stedfm_hf.training.segmentation.outcome import SCORES_FILE

DECODERS = {
    "upernet": "UperNet on a pyramid of four levels",
    "unetr": "the reference's full decoder, after UNETR",
    "linear": "the reference's linear decoder: the pixels of a patch from its token",
}


def write_card(folder: Folder, summary: Mapping[str, Any], sides: Mapping[str, Side]) -> None:
    """Writes `README.md`; see :func:`stedfm_hf.training.finetuning.card.write_card`.

    Args:
        folder: of the best model.
        summary: figures of all seeds.
        sides: what the figures are of.
    """
    network = StedFmForSemanticSegmentation.from_pretrained(folder.path)
    train = folder.splits.train
    best = next(run for run in summary["runs"] if run["seed"] == summary["best_seed"])
    ious = dict(zip(train.classes, best["test" if "test" in best else "validation"]["iou_per_class"], strict=True))
    card.write_card(
        folder,
        summary,
        sides,
        parameters={"encoder": count_parameters(network.stedfm), "decoder": count_parameters(network.decode_head)},
        config=network.config.to_dict(),
        drawn=("label_fraction", "label_count", "labels_per_class"),
        pictures=(EXAMPLES,),
        files={SCORES_FILE: "scores of this model of every validation and test image"},
        task="segmentation",
        classes=tuple(train.shown()),
        decoder=DECODERS[network.config.decoder],
        class_figure="IoU",
        of_class={name: value for name, value in ious.items() if name in train.shown()},
    )
