from __future__ import annotations

import dataclasses
import re
from typing import Literal

from huggingface_hub import ModelCard

from stedfm_hf.cards import ConvertedCardFacts, render_converted_card
from stedfm_hf.cards.checks import card_problems

FACTS = ConvertedCardFacts(
    name="stedfm-vit-small",
    architecture="stedfm-vit-small",
    kind="pretraining",
    config={
        "image_size": 224,
        "patch_size": 16,
        "num_channels": 1,
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
    },
    parameters={"encoder": 21392256, "decoder": 3482368},
    source="https://example.org/mae-small-sted.zip",
    source_sha256="ab" * 32,
    dropped={"backbone.mask_token": "never used"},
    weights_name="MAE_SMALL_STED",
    corpus="STED",
    training=("1,000 epochs.",),
    licence="mit",
    licence_text="MIT, as the reference",
)


def python_blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def test_the_hub_reads_the_front_matter() -> None:
    data = ModelCard(render_converted_card(FACTS)).data.to_dict()
    assert data["license"] == "mit" and data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "image-feature-extraction" and "microscopy" in data["tags"]


def test_the_card_contains_the_known_facts() -> None:
    card = render_converted_card(FACTS)
    for words in ("21,392,256", "16 x 16", "1,000 epochs.", "MAE_SMALL_STED", "`backbone.mask_token`", "ab" * 32):
        assert words in card
    assert "10.1101/2025.06.06.656993" in card and "{{" not in card and "{%" not in card and "None" not in card


def test_the_card_of_unknown_weights_claims_nothing() -> None:
    unknown = dataclasses.replace(
        FACTS, weights_name=None, corpus=None, training=(), licence=None, licence_text=None, source="mine.pth"
    )
    card = render_converted_card(unknown)
    assert "license:" not in card and "those of the authors" not in card and "million" not in card
    assert "does not record" in card and "mine.pth" in card


def test_every_card_has_three_ways_to_use_the_model() -> None:
    cases: tuple[tuple[Literal["pretraining", "classification", "segmentation"], str, str], ...] = (
        ("pretraining", "stedfm embed", 'AutoModel.from_pretrained("stedfm-vit-small"'),
        ("classification", "stedfm classify", 'pipeline("stedfm-image-classification", model="stedfm-vit-small"'),
        ("segmentation", "stedfm segment", 'pipeline("stedfm-segmentation", model="stedfm-vit-small"'),
    )
    for kind, command, name in cases:
        card = render_converted_card(dataclasses.replace(FACTS, kind=kind, labels=("actin", "tubulin")))
        package, alone = python_blocks(card)
        for code in (package, alone):
            compile(code, "card", "exec")
        assert command in card and name in package and "import stedfm_hf" in package
        assert "trust_remote_code=True" in alone and "stedfm_hf" not in alone


def test_a_converted_card_with_a_licence_is_complete() -> None:
    assert card_problems(render_converted_card(FACTS), "model") == []


def test_the_markdown_is_tidy() -> None:
    for kind in ("pretraining", "classification", "segmentation"):
        card = render_converted_card(dataclasses.replace(FACTS, kind=kind, labels=("actin",)))
        assert card.startswith("---\n") and card.endswith("\n") and not card.endswith("\n\n")
        assert "\n\n\n" not in card and not re.search(r"[ \t]\n", card)
        for heading in re.findall(r"^## .+$", card, flags=re.MULTILINE):
            before, after = card.split(heading)
            assert before.endswith("\n\n") and after.startswith("\n\n")
