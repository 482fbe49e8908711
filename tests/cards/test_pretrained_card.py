"""The card of a pretrained model says what is known of the run, and nothing else."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from huggingface_hub import ModelCard

from stedfm_hf.cards import PretrainedCardFacts, TrainingData, render_pretrained_card

LEAST = PretrainedCardFacts(
    name="my-model",
    architecture="stedfm-vit-64-p8",
    config={
        "image_size": 64,
        "patch_size": 8,
        "num_channels": 1,
        "hidden_size": 128,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "mask_ratio": 0.75,
        "norm_pix_loss": False,
    },
    parameters={"encoder": 1603200, "decoder": 456789},
    data=(TrainingData("cells", 12345),),
    steps=5000,
    samples=1280000,
)
MOST = dataclasses.replace(
    LEAST,
    data=(TrainingData("simulated-v1", 20000, simulated=True), TrainingData("lab/cells", 900, False, on_hub=True)),
    epochs=64.0,
    hours=1.5,
    images_per_second=12345.6,
    machine="1 x NVIDIA H100",
    precision="bfloat16",
    settings={"effective_batch_size": 256, "a|b": "c|d"},
    held_out_crops=2048,
    held_out_loss=0.00625,
    constant_loss=0.0125,
    psnr=22.04,
    knn=0.755,
    knn_untrained=0.5,
    curve="figures/curve.png",
    reconstructions="figures/reconstructions.png",
    files={"recipe.yaml": "all settings"},
    licence="mit",
)


def test_the_hub_reads_the_front_matter() -> None:
    data = ModelCard(render_pretrained_card(MOST)).data.to_dict()
    assert data["license"] == "mit" and data["library_name"] == "transformers" and data["datasets"] == ["lab/cells"]
    assert data["pipeline_tag"] == "image-feature-extraction" and {"stedfm", "synthetic"} <= set(data["tags"])
    least = ModelCard(render_pretrained_card(LEAST)).data.to_dict()
    assert "license" not in least and "datasets" not in least and "synthetic" not in least["tags"]


def test_the_card_contains_the_known_facts() -> None:
    card = render_pretrained_card(MOST)
    for words in (
        "1,603,200",
        "| simulated-v1 | 20,000 | simulated |",
        "| lab/cells | 900 | microscope |",
        "| optimiser steps | 5,000 |",
        "1,280,000 (64 epochs)",
        "1.5 hours on 1 x NVIDIA H100",
        "12,346 crops per second",
        "bfloat16",
        "| `a|b` | c\\|d |",
        "Metrics on 2,048 held-out crops",
        "| 0.00625 | 0.01250: best constant prediction |",
        "22.0 dB",
        "| 75.5 % | 50.0 %: before the first step |",
        "(figures/curve.png)",
        "(figures/reconstructions.png)",
        "- `recipe.yaml`: all settings",
        "Licence of the weights: mit",
        "10.1101/2025.06.06.656993",
    ):
        assert words in card, words
    assert "learned nothing" not in card


def test_unknown_facts_are_omitted() -> None:
    card = render_pretrained_card(LEAST)
    for words in ("hours", "per second", "kNN", "PSNR", "Held-out evaluation", "![", "simulated", "None", "license:"):
        assert words not in card, words
    assert "| cells | 12,345 | unknown |" in card and "Licence of the weights: not stated" in card


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ((True, True), "**Trained on only simulated images**"),
        ((True, False), "**Trained partly on simulated images**"),
        ((True, None), "**Trained partly on simulated images**"),
        ((False, None), None),
    ],
)
def test_simulated_data_are_called_simulated(known: tuple[Any, ...], wanted: str | None) -> None:
    data = tuple(TrainingData(f"set-{number}", 9, each) for number, each in enumerate(known))
    card = render_pretrained_card(dataclasses.replace(LEAST, data=data))
    assert ("**Trained " in card) == (wanted is not None) and (wanted is None or wanted in card)
    assert ("Simulated images contain" in card) == ("synthetic" in ModelCard(card).data.to_dict()["tags"])


@pytest.mark.parametrize(
    ("hours", "shown"), [(26.0, "26 hours"), (1.5, "1.5 hours"), (0.25, "15 minutes"), (0.001, "3.6 seconds")]
)
def test_the_time_has_a_suitable_unit(hours: float, shown: str) -> None:
    assert f"| time | {shown} on 1 x" in render_pretrained_card(dataclasses.replace(MOST, hours=hours))


def test_a_model_that_learned_nothing_is_reported() -> None:
    card = render_pretrained_card(dataclasses.replace(MOST, held_out_loss=0.02))
    assert "learned nothing by this measure" in card


def test_the_initial_weights_are_named() -> None:
    begun = render_pretrained_card(dataclasses.replace(LEAST, init_from="flclab/stedfm-vit-small"))
    assert "started from the weights of `flclab/stedfm-vit-small`" in begun and "random weights" not in begun
    assert "random weights" in render_pretrained_card(LEAST)


@pytest.mark.parametrize("facts", [LEAST, MOST, dataclasses.replace(MOST, knn=None, curve=None, files={})])
def test_the_example_is_python_and_the_markdown_tidy(facts: PretrainedCardFacts) -> None:
    card = render_pretrained_card(facts)
    codes = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(codes) == 2
    for code in codes:
        compile(code, "card", "exec")
    assert "{{" not in card and "{%" not in card
    assert card.startswith("---\n") and card.endswith("\n") and not card.endswith("\n\n")
    assert "\n\n\n" not in card and not re.search(r"[ \t]\n", card)
    for line in re.findall(r"^(?:## .+|\|.*\||!\[.*)$", card, flags=re.MULTILINE):
        before, after = card.split(line, 1)
        is_row = line.startswith("|")
        assert before.endswith("\n\n" if not is_row else "\n") and after.startswith("\n\n" if not is_row else "\n")
    tables = re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE)
    for table in tables:
        rows = [re.sub(r"\\\||`[^`]*`", "", row).count("|") for row in table.splitlines()]
        assert len(set(rows)) == 1, table
