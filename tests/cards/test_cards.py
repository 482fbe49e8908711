from __future__ import annotations

import dataclasses
import re

from huggingface_hub import ModelCard

from stedfm_hf.cards import CardFacts, render_model_card

FACTS = CardFacts(
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
    licence="MIT, as the reference",
)


def python_blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def test_the_hub_reads_the_front_matter() -> None:
    data = ModelCard(render_model_card(FACTS)).data.to_dict()
    assert data["license"] == "mit" and data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "image-feature-extraction" and "microscopy" in data["tags"]


def test_the_card_contains_the_known_facts() -> None:
    card = render_model_card(FACTS)
    for words in ("21,392,256", "16 x 16", "1,000 epochs.", "MAE_SMALL_STED", "`backbone.mask_token`", "ab" * 32):
        assert words in card
    assert "10.1101/2025.06.06.656993" in card and "{{" not in card and "{%" not in card and "None" not in card


def test_the_card_of_unknown_weights_claims_nothing() -> None:
    unknown = dataclasses.replace(FACTS, weights_name=None, corpus=None, training=(), licence=None, source="mine.pth")
    card = render_model_card(unknown)
    assert "license:" not in card and "those of the authors" not in card and "million" not in card
    assert "does not record" in card and "mine.pth" in card


def test_the_examples_are_python_for_both_kinds() -> None:
    classifier = dataclasses.replace(FACTS, kind="classification", labels=("actin", "tubulin"))
    for facts, name in ((FACTS, "AutoModel"), (classifier, "AutoModelForImageClassification")):
        (code,) = python_blocks(render_model_card(facts))
        compile(code, "card", "exec")
        assert f"{name}.from_pretrained" in code
    assert "(1, 2): actin, tubulin" in render_model_card(classifier)


def test_the_markdown_is_tidy() -> None:
    for kind in ("pretraining", "classification"):
        card = render_model_card(dataclasses.replace(FACTS, kind=kind, labels=("actin",)))
        assert card.startswith("---\n") and card.endswith("\n") and not card.endswith("\n\n")
        assert "\n\n\n" not in card and not re.search(r"[ \t]\n", card)
        for heading in re.findall(r"^## .+$", card, flags=re.MULTILINE):
            before, after = card.split(heading)
            assert before.endswith("\n\n") and after.startswith("\n\n")
