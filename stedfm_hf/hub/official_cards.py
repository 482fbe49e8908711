"""Cards of the official repositories on the Hub: `make cards` renders them to the folder `model_cards/`.

The cards of models and data sets that this package trained or made are rendered from the facts that its commands
recorded (`model_cards/facts/*.json`), and those of the authors' weights from the registry.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import DatasetCardData
from torch import nn

from stedfm_hf.cards import (
    ConvertedCardFacts,
    FinetunedCardFacts,
    render_converted_card,
    render_dataset_card,
    render_finetuned_card,
)
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.weights.official import OFFICIAL_WEIGHTS, OWNER, OfficialWeights

_ENCODERS = ("STED", "SIM", "HPA", "JUMP", "ImageNet")
_LINEAR_PROBE = {
    "optim": ((96.4, 0.5), (91.1, 0.5), (92.8, 0.4), (91.0, 0.5), (91.1, 1.5)),
    "neural-activity-states": ((44.6, 3.6), (33.0, 4.4), (24.6, 4.7), (33.9, 11.5), (25.4, 1.4)),
    "peroxisome": ((66.6, 5.2), (63.7, 4.4), (65.3, 4.8), (61.2, 5.8), (55.8, 2.2)),
    "polymer-rings": ((88.1, 2.6), (85.8, 2.7), (84.0, 3.9), (85.1, 5.3), (88.4, 3.3)),
    "dl-sim": ((95.4, 0.3), (96.7, 0.5), (91.4, 0.2), (93.9, 0.3), (95.2, 0.2)),
}
"""Accuracies of `stedfm-vit-small` by pretraining data: raw outputs in the reference repository, 24ed02b6."""
FACTS = "facts"
CARD = "README.md"


def official_cards(folder: Path) -> dict[str, str]:
    """Render the cards of all official repositories.

    Args:
        folder: Folder `model_cards` with the recorded facts.

    Returns:
        Text of each card, by its path relative to the folder.
    """
    return dict(_cards(folder))


def write_cards(folder: Path) -> list[Path]:
    """Write the cards of all official repositories.

    Args:
        folder: Folder `model_cards`.

    Returns:
        Paths of the cards.
    """
    cards = official_cards(folder)
    for name, text in cards.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in cards]


def _cards(folder: Path) -> Iterator[tuple[str, str]]:
    for weights in OFFICIAL_WEIGHTS.values():
        yield f"{weights.hub_id.partition('/')[2]}/{CARD}", render_converted_card(encoder_facts(weights))
    for path in sorted((folder / FACTS).glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        yield f"{path.stem}/{CARD}", _recorded_card(path.stem, facts)


def encoder_facts(weights: OfficialWeights) -> ConvertedCardFacts:
    """Return the facts of the card of an encoder of the authors.

    Args:
        weights: Facts about the weights.
    """
    config = StedFmConfig(**ARCHITECTURES[weights.architecture])
    with torch.device("meta"):
        model = StedFmForPreTraining(config)
    encoder, whole = _count(model.stedfm), _count(model)
    has_results = weights.name.startswith("MAE_SMALL_") and weights.corpus in _ENCODERS
    published = {name: dict(zip(_ENCODERS, values, strict=True)) for name, values in _LINEAR_PROBE.items()}
    return ConvertedCardFacts(
        name=weights.hub_id,
        architecture=weights.architecture,
        kind="pretraining",
        config=config.to_dict(),
        parameters={"encoder": encoder, "decoder": whole - encoder},
        source=weights.url,
        weights_name=weights.name,
        corpus=weights.corpus,
        training=weights.training,
        licence=weights.licence,
        licence_text=weights.licence_note,
        published=published if has_results else {},
        published_as=weights.corpus,
    )


def _recorded_card(name: str, facts: dict[str, Any]) -> str:
    """Render the card of a data set, which has a front matter, or of a model that was trained by this package."""
    if "front_matter" in facts:
        return render_dataset_card(DatasetCardData(**facts.pop("front_matter")), **facts)
    tuples: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in facts.items()}
    tuples["name"] = f"{OWNER}/{name}"
    return render_finetuned_card(FinetunedCardFacts(**tuples))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    for written in write_cards(Path(sys.argv[1])):
        print(written)
