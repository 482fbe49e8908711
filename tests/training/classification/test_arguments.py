"""The words of a fine-tuning."""

from __future__ import annotations

from pathlib import Path

import pytest

from stedfm_hf.runs import UserError
from stedfm_hf.runs.recipes import write_recipe
from stedfm_hf.training.classification.arguments import (
    LEARNING_RATES,
    MODES,
    ClassificationArguments,
    parse_arguments,
)
from stedfm_hf.training.finetuning.arguments import LOCAL
from stedfm_hf.training.parsing import recipe_values

LEAST = "--model demo --dataset crops --output_dir run --device cpu"


def parse(words: str) -> ClassificationArguments:
    return parse_arguments(f"{LEAST} {words}".split())[2]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_rate(mode: str) -> None:
    blocks = " --blocks 2" if mode == "last-blocks" else ""
    assert parse(f"--mode {mode}{blocks}").learning_rate == LEARNING_RATES[mode]
    assert parse(f"--mode {mode}{blocks} --learning_rate 0.5").learning_rate == 0.5


def test_seeds_are_those_named_or_the_one() -> None:
    assert parse("").seeds == [42] and parse("--seed 7").seeds == [7] and parse("--seeds 1 2 3").seeds == [1, 2, 3]


def test_the_budget_is_that_of_all_images() -> None:
    arguments = parse("--num_train_epochs 10 --effective_batch 50")
    assert arguments.steps_for(1000, 1000) == arguments.steps_for(1000, 20) == 200
    assert arguments.steps_for(1000, 2) == 40  # a thousand passes at most, as in the reference
    assert parse("--sample_budget 640").steps_for(1000, 500) == 10 and parse("--max_steps 3").steps_for(9, 9) == 3


def test_a_recipe_gives_the_values_again(tmp_path: Path) -> None:
    data, model, arguments = parse_arguments(
        f"{LEAST} --mode last-blocks --blocks 3 --layer_decay 0.8 --labels_per_class 9 --no_augment".split()
    )
    recipe = recipe_values((data, model, arguments), LOCAL)
    assert not {"model", "dataset", "output_dir", "seeds"} & set(recipe)
    write_recipe(tmp_path / "recipe.yaml", recipe)
    again = parse_arguments(f"{LEAST} --recipe {tmp_path / 'recipe.yaml'}".split())
    assert recipe_values(again, LOCAL) == recipe and again[1].blocks == 3 and not again[2].augment


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--mode linear", "invalid choice: 'linear'"),
        ("--mode last-blocks", "give --mode last-blocks --blocks 2"),
        ("--blocks 2", "do not fit"),
        ("--seeds 1 1", "name one twice"),
        ("--label-per-class 3", "is no argument; did you mean --labels_per_class"),
        ("--load_best_model_at_end", "--choose_by"),
        ("--layer_decay 1.5", "layer_decay is 1.5"),
        ("--early_stopping_patience 0", "early_stopping_patience is 0"),
        ("--recipe small", "is no file"),
        ("--deepspeed zero1", "leave deepspeed and fsdp out"),
    ],
)
def test_wrong_words_are_said(words: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        parse(words)
