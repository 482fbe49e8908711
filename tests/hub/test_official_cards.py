"""The cards of the official repositories are those that `make cards` renders, and complete."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from stedfm_hf.cards.checks import card_problems
from stedfm_hf.hub.official_cards import official_cards
from stedfm_hf.weights.default_model import HUB_ID
from stedfm_hf.weights.official import OFFICIAL_WEIGHTS

FOLDER = Path(__file__).parents[2] / "model_cards"
CARDS = official_cards(FOLDER)


def test_every_official_encoder_a_classifier_a_segmenter_and_a_data_set_have_a_card() -> None:
    names = {each.hub_id.partition("/")[2] for each in OFFICIAL_WEIGHTS.values()}
    assert len(names) == len(OFFICIAL_WEIGHTS)
    others = {"stedfm-demo-classifier", "stedfm-demo-segmenter", "stedfm-benchmark-v1"}
    assert set(CARDS) == {f"{name}/README.md" for name in names | others}
    assert HUB_ID == "flclab/stedfm-vit-small"


@pytest.mark.parametrize("name", sorted(CARDS))
def test_a_card_is_up_to_date_and_complete(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert text == CARDS[name], "run `make cards`"
    assert card_problems(text, "dataset" if "benchmark" in name else "model") == []
    assert "/tmp/" not in text and "/home/" not in text


def test_weights_without_a_file_are_called_planned() -> None:
    for weights in OFFICIAL_WEIGHTS.values():
        text = CARDS[f"{weights.hub_id.partition('/')[2]}/README.md"]
        assert ("this repository is planned" in text) == (weights.url is None)


def test_the_space_runs_the_app_of_the_package() -> None:
    text = (FOLDER / "space/README.md").read_text(encoding="utf-8")
    assert card_problems(text, "space") == []
    constraints = (FOLDER.parent / "constraints.txt").read_text(encoding="utf-8")
    assert f"\ngradio=={yaml.safe_load(text.split('---')[1])['sdk_version']}\n" in constraints
    tree = ast.parse((FOLDER / "space/app.py").read_text(encoding="utf-8"))
    (imported,) = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    module = __import__(str(imported.module), fromlist=["x"])
    assert all(hasattr(module, each.name) for each in imported.names)
