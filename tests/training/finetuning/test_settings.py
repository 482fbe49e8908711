"""Settings of fine-tunings: what each mode has by default, and what is refused before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from stedfm_hf.runs import UserError
from stedfm_hf.runs.recipes import write_recipe
from stedfm_hf.training.finetuning.settings import ClassificationSettings, FinetuneSettings, SegmentationSettings
from tests.command_words import settings_from
from tests.training.launching import statuses_without_torch

KINDS: dict[str, type[FinetuneSettings]] = {
    "classification": ClassificationSettings,
    "segmentation": SegmentationSettings,
}
MODES = [(task, mode) for task, kind in KINDS.items() for mode in kind.learning_rates]


def parse(task: str, words: str = "") -> FinetuneSettings:
    least = ["--model", "demo", "--dataset", "lab/crops", "--output", "run", "--device", "cpu"]
    settings: FinetuneSettings = settings_from(KINDS[task], [*least, *words.split()])
    return settings


@pytest.mark.parametrize(("task", "mode"), MODES)
def test_every_mode_has_a_default_learning_rate(task: str, mode: str) -> None:
    words = f"--mode {mode}{' --blocks 2' if mode == 'last-blocks' else ''}"
    assert parse(task, words).peak_learning_rate == KINDS[task].learning_rates[mode]
    assert parse(task, f"{words} --learning_rate 0.5").peak_learning_rate == 0.5


def test_early_blocks_have_lower_rates_when_all_weights_are_trained_with_a_new_decoder() -> None:
    assert (
        parse("segmentation").effective_layer_decay == 0.75
        and parse("segmentation", "--mode frozen").effective_layer_decay == 1
    )
    assert parse("segmentation", "--layer-decay 0.5").effective_layer_decay == 0.5


def test_one_or_several_seeds_can_be_given() -> None:
    assert parse("classification").seeds == [42] and parse("classification", "--seed 7").seeds == [7]
    assert parse("classification", "--seeds 1 2 3").seeds == [1, 2, 3]


def test_the_number_of_steps_is_that_of_all_images() -> None:
    settings = parse("classification", "--num_train_epochs 10 --effective_batch_size 50")
    assert settings.steps_for(1000, 1000) == settings.steps_for(1000, 20) == 200
    assert settings.steps_for(1000, 2) == 40  # at most a thousand epochs, as in the reference
    assert parse("classification", "--sample_budget 640").steps_for(1000, 500) == 10
    assert parse("classification", "--max_steps 3").steps_for(9, 9) == 3


def test_a_recipe_restores_the_values(tmp_path: Path) -> None:
    words = "--mode last-blocks --blocks 3 --layer_decay 0.8 --labels_per_class 9 --no_augment"
    recipe = parse("classification", words).recipe()
    assert not {"model", "dataset", "output", "seeds"} & set(recipe)
    write_recipe(tmp_path / "recipe.yaml", recipe)
    again = parse("classification", f"--recipe {tmp_path / 'recipe.yaml'}")
    assert again.recipe() == recipe and again.blocks == 3 and not again.augment


@pytest.mark.parametrize(
    ("task", "words", "error"),
    [
        ("classification", "--mode linear", "mode 'linear' is unknown; did you mean linear-probe"),
        ("classification", "--mode last-blocks", "--mode last-blocks: give the number of blocks"),
        ("classification", "--blocks 2", "--blocks 2 needs --mode last-blocks"),
        ("classification", "--seeds 1 1", "each only once"),
        (
            "classification",
            "--label-per-class 3",
            "--label-per-class is neither an option of this command nor a training argument; "
            "did you mean --labels-per-class",
        ),
        ("classification", "--load_best_model_at_end", "--metric-for-best-model"),
        ("classification", "--layer_decay 1.5", "--layer-decay is 1.5"),
        ("classification", "--early_stopping_patience 0", "early_stopping_patience is 0"),
        ("classification", "--recipe small", "recipe 'small' is unknown; give a file"),
        ("classification", "--deepspeed zero1", "--deepspeed: not available for fine-tuning"),
        ("classification", "--model nowhere", "model nowhere: no such folder"),
        ("classification", "--dataset nowhere", "nowhere: no such folder"),
        ("classification", "--labels_per_class 3 --label_fraction 0.1", "give one of them"),
        (
            "segmentation",
            "--label_count 3 --label_fraction 0.5",
            "--label-fraction and --label-count exclude each other",
        ),
        ("segmentation", "--min_annotated 2", "min_annotated is 2"),
        ("segmentation", "--decoder unetr --auxiliary", "--auxiliary needs --decoder upernet"),
        ("segmentation", "--decoder unet", "decoder 'unet' is unknown; did you mean unetr"),
        ("segmentation", "--label_count 0", "label_count is 0"),
        ("segmentation", "--masks nowhere", "--masks nowhere: there is no such folder"),
    ],
)
def test_wrong_options_are_reported(task: str, words: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        parse(task, words)


def test_help_and_wrong_options_import_neither_torch_nor_transformers() -> None:
    lines = ["--help", "--dataset lab/a --output x", "--model nowhere --dataset lab/a --output x"]
    commands = [f"finetune {task} {line}" for line in lines for task in KINDS]
    statuses, errors, printed = statuses_without_torch(commands)
    assert statuses == [0, 0, 2, 2, 2, 2] and errors.count("\n") == 4 and "--adafactor" not in printed
