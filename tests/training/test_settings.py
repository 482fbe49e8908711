"""Settings of trainings: from options and recipes, checked before torch is imported, composed when training starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.runs import UserError
from stedfm_hf.runs.recipes import recipe_names, write_recipe
from stedfm_hf.training.arguments import compose_arguments
from stedfm_hf.training.checks import tracker_names, training_argument_names
from stedfm_hf.training.settings import (
    MAX_PER_DEVICE_BATCH,
    RECIPES,
    PretrainSettings,
)
from tests.command_words import settings_from
from tests.training.launching import statuses_without_torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parse(tmp_path: Path) -> Callable[[str], PretrainSettings]:
    def parsed(words: str = "") -> PretrainSettings:
        least = ["--dataset", "lab/crops", "--output", str(tmp_path / "run")]
        return settings_from(PretrainSettings, [*least, *words.split()], recipes=RECIPES)

    return parsed


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    def written(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_an_option_given_twice_drops_nothing(
    parse: Callable[[str], PretrainSettings], recipe: Callable[..., Path]
) -> None:
    assert parse("--dataset lab/more --dataset-weights 1 --dataset-weights 2").dataset == ["lab/crops", "lab/more"]
    assert parse("--dataset-weights 1 --dataset lab/more lab/b --dataset-weights 2 3").dataset_weights == [1, 2, 3]
    mine = recipe("dataset_weights: [7, 8]\n")
    assert parse(f"--dataset lab/b --recipe {mine}").dataset_weights == [7, 8]
    assert parse(f"--dataset lab/b --dataset-weights 1 --recipe {mine} --dataset-weights 2").dataset_weights == [
        1,
        2,
    ], "options override"


# --------------------------------------------------------------------------------------------- recipes


def test_there_is_a_recipe_for_every_architecture_and_the_published_one() -> None:
    assert set(recipe_names(RECIPES)) == {"tiny", "small", "base", "large", "64-p8", "reference", "demo"}
    assert set(MAX_PER_DEVICE_BATCH) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_every_recipe_of_the_package_works_and_marks_the_values_of_the_reference(
    name: str, parse: Callable[[str], PretrainSettings]
) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    published = yaml.safe_load((RECIPES / "reference.yaml").read_text(encoding="utf-8"))
    for key, value in re.findall(r"^(\w+): (\S+) # reference protocol$", text, re.MULTILINE):
        if key in published:  # the others are defaults of the architecture
            assert published[key] == yaml.safe_load(value), key
    settings = parse(f"--recipe {name}")
    for key, value in yaml.safe_load(text).items():
        number = isinstance(value, str) and value[0].isdigit()
        assert getattr(settings, key) == (float(value) if number else value), key
    assert (settings.protocol == "reference") == (name == "reference")
    if name not in ("reference", "demo"):
        assert settings.architecture.endswith(f"-{name}")
    decoder = {key: value for key, value in vars(settings).items() if key.startswith("decoder_") and value is not None}
    StedFmConfig(**ARCHITECTURES[settings.architecture], **decoder)  # width and heads go together


def test_the_reference_recipe_is_what_was_published(parse: Callable[[str], PretrainSettings]) -> None:
    settings = parse("--recipe reference")
    assert settings.protocol == "reference" and not settings.standardise_input and not settings.norm_pix_loss
    assert (settings.peak_learning_rate, settings.warmup_ratio, settings.max_grad_norm) == (1.5e-4, 0, 0)
    assert (settings.precision, settings.num_train_epochs, settings.effective_batch_size) == ("float32", 1000, 1024)


def test_options_override_the_recipe_and_the_recipe_the_defaults(
    parse: Callable[[str], PretrainSettings], recipe: Callable[..., Path]
) -> None:
    path = recipe("mask-ratio: 0.5\nseed: 7\ndataset_weights: [2]\naugment: false\ntraining_arguments: {optim: sgd}\n")
    settings = parse(f"--recipe {path}")
    assert (settings.dataset_weights, settings.mask_ratio, settings.seed, settings.augment) == ([2.0], 0.5, 7, False)
    settings = parse(f"--seed 8 --mask_ratio=0.6 --recipe {path} --augment --tf32 true")
    assert (settings.mask_ratio, settings.seed, settings.augment) == (0.6, 8, True)
    assert settings.weight_decay == 0.05 and settings.training_arguments == {"optim": "sgd", "tf32": ["true"]}


def test_a_recipe_may_be_json_and_name_everything(tmp_path: Path, recipe: Callable[..., Path]) -> None:
    values = {
        "dataset": ["lab/a", "lab/b"],
        "dataset_weights": [3, 1],
        "output": str(tmp_path / "out"),
        "max_grad_norm": 1,
    }
    words = ["--recipe", str(recipe(json.dumps(values), "mine.json"))]
    settings = settings_from(PretrainSettings, words, recipes=RECIPES)
    assert settings.dataset == ["lab/a", "lab/b"] and settings.dataset_weights == [3.0, 1.0]
    assert settings.folder == tmp_path / "out" and isinstance(settings.max_grad_norm, float)


def test_a_number_that_yaml_takes_for_a_text_is_a_number(
    parse: Callable[[str], PretrainSettings], recipe: Callable[..., Path]
) -> None:
    assert yaml.safe_load("1e-4") == "1e-4"
    assert parse(f"--recipe {recipe('learning_rate: 1e-4')}").learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("mask_ration: 0.5", "mine.yaml: mask_ration is not an option; did you mean mask_ratio?"),
        ("learningrate: 0.5", "mine.yaml: learningrate is not an option; did you mean learning_rate?"),
        ("qqqq: 0.5", "mine.yaml: qqqq is not an option"),
        ("mask_ratio: much", "mine.yaml: mask_ratio is 'much', but must be a number"),
        ("mask_ratio: true", "mine.yaml: mask_ratio is True, but must be a number"),
        ("seed: 1.5", "mine.yaml: seed is 1.5, but must be a whole number"),
        ("seed: '7'", "mine.yaml: seed is '7', but must be a whole number"),
        ("augment: 'no'", "mine.yaml: augment is 'no', but must be true or false"),
        ("architecture: 3", "mine.yaml: architecture is 3, but must be a text"),
        ("dataset: crops", "mine.yaml: dataset is 'crops', but must be a list"),
        ("dataset_weights: [1, two]", "mine.yaml: dataset_weights is [1, 'two'], but must be a list or null"),
        ("ema_decay: [0.9]", "mine.yaml: ema_decay is [0.9], but must be a number or null"),
        ("- seed", "mine.yaml: is not a recipe"),
        ("", "mine.yaml: is not a recipe"),
        ("seed: 1\nseed: 2", "mine.yaml: line 2: the key seed appears twice (first on line 1)"),
        ("seed: [1", "mine.yaml: is not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_reported_in_a_line_with_file_and_key(
    text: str, line: str, parse: Callable[[str], PretrainSettings], recipe: Callable[..., Path]
) -> None:
    with pytest.raises(UserError) as caught:
        parse(f"--recipe {recipe(text)}")
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("smal", "recipe 'smal' is unknown; did you mean small?"),
        ("gone.yaml", "recipe gone.yaml: there is no such file"),
        ("mine.txt", "recipe 'mine.txt' is unknown"),
    ],
)
def test_a_missing_recipe_is_reported_with_the_existing_ones(
    name: str, line: str, parse: Callable[[str], PretrainSettings]
) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        parse(f"--recipe {name}")


@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_the_recipe_of_a_run_reproduces_it_and_names_no_folder(
    name: str, parse: Callable[[str], PretrainSettings], tmp_path: Path
) -> None:
    first = parse(
        f"--recipe {name} --seed 3 --warmup_steps 12 --effective_batch_size 32 --init_from {tmp_path} --tf32 1"
    )
    values = first.recipe()
    write_recipe(tmp_path / "recipe.yaml", values)
    assert str(tmp_path) not in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    again = parse(f"--recipe {tmp_path / 'recipe.yaml'}")
    assert again.recipe() == values and again.training_arguments == {"tf32": ["1"]}
    assert again.peak_learning_rate == first.peak_learning_rate and again.warmup_steps == 12


# --------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize("flag", ["--output", "--output_dir", "--output-dir"])
def test_output_dir_is_another_name_of_the_output(flag: str, tmp_path: Path) -> None:
    words = ["--dataset", "lab/a", flag, str(tmp_path)]
    assert settings_from(PretrainSettings, words).folder == tmp_path


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--mask-ration 0.5",
            "--mask-ration is neither an option of this command nor a training argument; did you mean --mask-ratio?",
        ),
        (
            "--adam-epsilo=3",
            "--adam-epsilo is neither an option of this command nor a training argument; did you mean --adam-epsilon?",
        ),
        ("extra", "unexpected argument 'extra'"),
        ("--seed x", "Invalid value for '--seed'"),
        ("--seed -1", "seed is -1"),
        ("--mask_ratio 1", "--mask-ratio is 1.0"),
        ("--architecture stedfm-vit-smal", "is unknown; did you mean stedfm-vit-small?"),
        ("--dataset nowhere", "nowhere: no such folder"),
        ("--dataset-weights 1 2", "--dataset-weights 1 2: give one number above 0 for each of 1 data set"),
        ("--dataset-weights 0", "give one number above 0"),
        ("--warmup_ratio 1", "--warmup-ratio is 1.0"),
        ("--ema_decay 1", "--ema-decay is 1.0"),
        ("--effective_batch_size 0", "effective_batch_size is 0"),
        ("--effective_batch_size 1031", "the nearest that can: 1030 or 1032"),
        ("--logging_steps 30", "--logging-steps 30 does not divide --save-steps 1000 and --eval-steps 1000"),
        ("--logging_steps 400 --save_steps 100 --eval_steps 0", "the nearest that does: 100"),
        ("--fp16 --precision bfloat16", "--precision excludes --bf16 and --fp16"),
        ("--hub_token hf_secret", "run `hf auth login`, or set HF_TOKEN"),
        ("--deepspeed zero4", "give zero1, zero2, zero3 or a JSON file"),
        ("--device tpu", "device 'tpu' is unknown"),
        ("--report_to tensorbord", "--report-to tensorbord: there is no such tracker; did you mean tensorboard?"),
    ],
)
def test_a_wrong_option_is_reported_in_a_line(
    words: str, line: str, parse: Callable[[str], PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.training.checks.check_installed", lambda *_: None)  # DeepSpeed may be missing
    with pytest.raises(ValueError) as caught:
        parse(words)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_required_options_are_asked_for() -> None:
    with pytest.raises(UserError, match="--dataset is missing"):
        settings_from(PretrainSettings, ["--output", "run"])
    with pytest.raises(UserError, match="--output is missing"):
        settings_from(PretrainSettings, ["--dataset", "lab/crops"])


@pytest.mark.parametrize(("words", "extra"), [("--deepspeed zero1", "deepspeed"), ("--report_to tensorboard",) * 2])
def test_an_extra_that_is_missing_is_named(
    words: str, extra: str, parse: Callable[[str], PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.training.checks.find_spec", lambda name: None)
    monkeypatch.setattr("stedfm_hf.training.checks.tracker_names", lambda: ("tensorboard",))
    with pytest.raises(UserError, match=r"pip install 'stedfm-hf\[" + extra.split()[-1]):
        parse(words)


def test_a_tracker_without_its_package_is_reported(
    parse: Callable[[str], PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.training.checks.tracker_names", lambda: ("comet_ml", "wandb"))
    monkeypatch.setattr("stedfm_hf.training.checks.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--report-to comet_ml: comet-ml is not installed; pip install comet-ml"):
        parse("--report_to comet_ml")


def test_help_and_wrong_options_import_neither_torch_nor_transformers() -> None:
    lines = ["pretrain --help", "pretrain --dataset lab/a", "pretrain --dataset nowhere --output run"]
    statuses, errors, _ = statuses_without_torch([*lines, "pretrain --mask-ration 1"])
    assert statuses == [0, 2, 2, 2] and errors.count("\n") == 3


def test_names_read_from_the_source_of_transformers_are_its_names() -> None:
    from transformers import TrainingArguments
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert training_argument_names() == tuple(each.name for each in fields(TrainingArguments))
    assert tracker_names() == tuple(INTEGRATION_TO_CALLBACK)


# --------------------------------------------------------------------------------------------- what is composed


@pytest.mark.parametrize(
    ("words", "rate", "warmup"),
    [
        ("", 6e-4, 0.05),
        ("--effective_batch_size 256", 1.5e-4, 0.05),
        ("--effective_batch_size 512 --base_learning_rate 1e-3 --warmup_ratio 0.1", 2e-3, 0.1),
        ("--effective_batch_size 512 --learning_rate 1e-3 --warmup_steps 0", 1e-3, 0),
    ],
)
def test_the_learning_rate_is_scaled_with_the_batch_unless_it_is_given(
    words: str, rate: float, warmup: float, parse: Callable[[str], PretrainSettings]
) -> None:
    arguments = compose_arguments(parse(f"--device cpu {words}"))
    assert arguments.learning_rate == pytest.approx(rate) and arguments.warmup_steps == warmup


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_process_takes_what_its_architecture_allows(
    architecture: str, parse: Callable[[str], PretrainSettings]
) -> None:
    most = MAX_PER_DEVICE_BATCH[architecture]
    assert parse(f"--architecture {architecture}").split_batch() == (most, 1024 // most)
    assert parse("--max_per_device_batch 32").split_batch() == (32, 32)


def test_what_the_trainer_needs_is_set(parse: Callable[[str], PretrainSettings]) -> None:
    arguments = compose_arguments(parse("--device cpu"))
    assert arguments.use_cpu and arguments.device.type == "cpu" and arguments.bf16 is False
    assert arguments.label_names == [] and not arguments.remove_unused_columns and arguments.report_to == []
    assert not arguments.logging_nan_inf_filter and arguments.ddp_find_unused_parameters is False
    assert (arguments.eval_strategy, arguments.eval_steps) == ("steps", 1000)
    assert compose_arguments(parse("--device cpu --eval_steps 0")).eval_strategy == "no"
    assert compose_arguments(parse("--device cpu --precision bfloat16")).bf16 is True


def test_other_arguments_of_transformers_are_options_too(parse: Callable[[str], PretrainSettings]) -> None:
    words = "--device cpu --bf16 --adam-epsilon 1e-6 --include_for_metrics loss inputs --logging_first_step=true"
    arguments = compose_arguments(parse(f"{words} --no_skip_memory_metrics"))
    assert arguments.bf16 and arguments.adam_epsilon == 1e-6 and arguments.include_for_metrics == ["loss", "inputs"]
    assert arguments.logging_first_step and not arguments.skip_memory_metrics
    for wrong, line in (
        ("--adam-epsilon much", "invalid float value: 'much'"),
        ("--lr-scheduler-type cosin", "cosin is not a valid SchedulerType"),
        ("--fp16 --bf16", "At most one of fp16 and bf16"),
    ):
        with pytest.raises(UserError, match=line):
            compose_arguments(parse(f"--device cpu {wrong}"))


def test_two_processes_share_the_batch(parse: Callable[[str], PretrainSettings], monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = parse("--recipe 64-p8 --max_per_device_batch 8")
    assert settings.describe_batch() == "effective batch 64 = 2 processes x 8 crops x 4 accumulation steps"


# --------------------------------------------------------------------------------------------- packaged configurations


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_deepspeed_files_take_their_values_from_the_arguments(stage: int) -> None:
    config: dict[str, Any] = json.loads(
        (RECIPES.parent / "deepspeed_configs" / f"zero{stage}.json").read_text("utf-8")
    )
    assert config["zero_optimization"]["stage"] == stage
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert config[key] == "auto"
    assert config["gradient_clipping"] == config["bf16"]["enabled"] == "auto"
    assert (
        "optimizer" not in config and "scheduler" not in config
    )  # those of the trainer: decay of matrices only, one cosine


def test_fsdp_wraps_an_existing_layer() -> None:
    from stedfm_hf.modeling import layers_stedfm

    config = yaml.safe_load((RECIPES.parent / "accelerate_configs" / "fsdp2.yaml").read_text(encoding="utf-8"))
    assert config["fsdp_config"]["fsdp_version"] == 2
    assert hasattr(layers_stedfm, config["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash")
def test_the_slurm_script_is_valid_and_passes_all_options_on(tmp_path: Path) -> None:
    script = RECIPES.parent / "slurm" / "pretrain.sbatch"
    nodes = "echo node1; sleep 0.5; echo node2"  # a reader that stops after the first line would break the pipe
    for name, body in {"scontrol": nodes, "srun": 'printf "%s\\n" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "2"}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_GPUS_ON_NODE": "8"}
    words = ["--recipe", "large", "--dataset", "a b"]
    run = subprocess.run(["bash", str(script), *words], capture_output=True, text=True, env=environment, timeout=60)
    assert run.returncode == 0, run.stderr
    given = run.stdout.splitlines()
    assert given[-len(words) - 2 :] == ["-m", "stedfm_hf.training.pretrain", *words]
    assert given[given.index("--rdzv_endpoint") + 1].startswith("node1:")
    assert given[given.index("--nnodes") + 1] == "2" and given[given.index("--nproc_per_node") + 1] == "8"
