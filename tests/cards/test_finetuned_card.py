"""The card of a classifier says what is known of the runs, how the split was made, and nothing else."""

from __future__ import annotations

import dataclasses
import re

import pytest
from huggingface_hub import ModelCard

from stedfm_hf.cards.finetuned import FinetunedCardFacts, render_finetuned_card

LEAST = FinetunedCardFacts(
    name="my-classifier",
    task="classes",
    classes=("actin", "tub|ulin"),
    config={
        "image_size": 64,
        "patch_size": 8,
        "num_channels": 1,
        "hidden_size": 128,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
    },
    parameters={"encoder": 1603200, "head": 258},
    base="stedfm-vit-small",
    mode="full",
    mode_description="all weights were trained",
    data="my-crops",
    split="The splits are those of the data set; there is no test split.",
    images={"train": 1000, "validation": 200},
    sources={"train": 100, "validation": 20},
    metric_for_best_model="balanced_accuracy",
    seeds=(42,),
    best_seed=42,
    best_step=10,
    steps=20,
    metrics={"validation": {"accuracy": (0.9, None, 0.9)}},
    reported_split="validation",
)
MOST = dataclasses.replace(
    LEAST,
    simulated=True,
    base="demo",
    base_note="trained on simulated images only",
    seeds=(42, 43),
    images={**LEAST.images, "test": 300},
    sources={**LEAST.sources, "test": 30},
    metrics={name: {"accuracy": (0.9, 0.0123, 0.95)} for name in ("validation", "test")},
    reported_split="test",
    metric_per_class={"actin": 0.5, "tub|ulin": None},
    images_per_class={"actin": 400, "tub|ulin": 600},
    sampled=True,
    settings={"learning_rate": 0.001},
    machine="1 x NVIDIA H100",
    precision="bfloat16",
    figures={"curve": "figures/curve.png", "confusion_matrix": "figures/confusion_matrix.png"},
    files={"metrics.json": "all figures"},
    failed={"cell_3.tif": "truncated"} | {f"cell_{number}.tif": "NaN" for number in range(10, 21)},
    licence="mit",
)
NUMBERS = dataclasses.replace(
    LEAST, task="regression", classes=(), target="resolution", metrics={"validation": {"r2": (0.5, None, 0.5)}}
)


def test_the_hub_reads_the_front_matter() -> None:
    data = ModelCard(render_finetuned_card(MOST)).data.to_dict()
    assert data["license"] == "mit" and data["pipeline_tag"] == "image-classification" and "synthetic" in data["tags"]
    least = ModelCard(render_finetuned_card(LEAST)).data.to_dict()
    assert "license" not in least and "synthetic" not in least["tags"]


def test_the_card_contains_the_known_facts() -> None:
    card = render_finetuned_card(MOST)
    for words in (
        "into 2 classes",
        "`demo` (trained on simulated images only): all weights were trained.",
        "**Trained and tested on simulated images**",
        "| test, 300 images | mean ± standard deviation of 2 seeds | this model |",
        "| accuracy | 0.9000 ± 0.0123 | 0.9500 |",
        "could not be read: 12.\n\n- `cell_3.tif`: truncated\n- `cell_10.tif`: NaN\n",
        "- and 2 more, listed in `manifest.json` (not published by default)\n",
        "| tub\\|ulin | undefined | 600 |",
        "| train (sample) | 1,000 | 100 |",
        "Splits: The splits are those of the data set; there is no test split. No source image is in two splits.",
        "the test images were only used for the final metrics",
        "(figures/confusion_matrix.png)",
        "1 x NVIDIA H100",
        "seed 42, step 10 of 20",
    ):
        assert words in card, words


def test_a_missing_test_split_is_reported() -> None:
    card = render_finetuned_card(LEAST)
    assert "**There is no test split**" in card and "| validation, 200 images | seed 42 | this model |" in card
    for words in ("simulated", "None", "![", "license:", "recall of this model"):
        assert words not in card, words


def test_a_regression_is_not_called_a_classifier() -> None:
    card = render_finetuned_card(NUMBERS)
    assert "predicts the number `resolution`" in card and "| r2 | 0.5000 | 0.5000 |" in card
    assert "classes" not in card and "assigned to a class" not in card


def test_from_scratch_names_only_the_architecture() -> None:
    card = render_finetuned_card(dataclasses.replace(LEAST, mode="from-scratch"))
    assert "from scratch, with the architecture of `stedfm-vit-small`" in card and "from the weights of" not in card


@pytest.mark.parametrize("facts", [LEAST, MOST, NUMBERS, dataclasses.replace(MOST, metrics={}, files={})])
def test_the_example_is_python_and_the_markdown_tidy(facts: FinetunedCardFacts) -> None:
    card = render_finetuned_card(facts)
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
    for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
        rows = [re.sub(r"\\\||`[^`]*`", "", row).count("|") for row in table.splitlines()]
        assert len(set(rows)) == 1, table
