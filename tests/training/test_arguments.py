from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.runs import UserError
from stedfm_hf.runs.recipes import recipe_names, write_recipe
from stedfm_hf.training.arguments import (
    KINDS,
    MAX_PER_DEVICE_BATCH,
    DataArguments,
    ModelArguments,
    PretrainArguments,
    parse_arguments,
    used_recipe,
)
from stedfm_hf.training.classification import arguments as classification
from stedfm_hf.training.parsing import RECIPES
from stedfm_hf.training.segmentation import arguments as segmentation

ROOT = Path(__file__).parents[2]
Parsed = tuple[DataArguments, ModelArguments, PretrainArguments]


@pytest.fixture
def parse(tmp_path: Path) -> Callable[[str], Parsed]:
    def parsed(words: str = "") -> Parsed:
        return parse_arguments(["--dataset", "crops", "--output_dir", str(tmp_path / "run"), *words.split()])

    return parsed


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    def written(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_an_option_given_twice_drops_nothing(parse: Callable[[str], Parsed], recipe: Callable[..., Path]) -> None:
    assert parse("--dataset more --weights 1 --weights 2")[0].dataset == ["crops", "more"]
    assert parse("--weights 1 --dataset more even_more --weights 2 3")[0].weights == [1, 2, 3]
    mine = recipe("weights: [7, 8]\n")
    assert parse(f"--dataset b --recipe {mine}")[0].weights == [7, 8]
    assert parse(f"--dataset b --weights 1 --recipe {mine} --weights 2")[0].weights == [1, 2], "flags override"


# --------------------------------------------------------------------------------------------- recipes


def test_there_is_a_recipe_for_every_architecture_and_the_published_one() -> None:
    assert set(recipe_names(RECIPES)) == {"tiny", "small", "base", "large", "64-p8", "legacy", "demo"}
    assert set(MAX_PER_DEVICE_BATCH) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_every_recipe_of_the_package_works_and_says_where_its_values_are_from(
    name: str, parse: Callable[[str], Parsed]
) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        assert line.startswith("#") or re.search(r"\S: \S+ # (paper|reference protocol|ours)", line), line
    _, model, training = parse(f"--recipe {name}")
    for key, value in yaml.safe_load(text).items():
        (holder,) = [part for part in (model, training) if key in {field.name for field in fields(part)}]
        assert getattr(holder, key) == (float(value) if isinstance(value, str) and value[0].isdigit() else value), key
    assert training.legacy == (name == "legacy")
    if name not in ("legacy", "demo"):
        assert model.architecture.endswith(f"-{name}")
    decoder = {key: value for key, value in vars(model).items() if key.startswith("decoder_") and value is not None}
    StedFmConfig(**ARCHITECTURES[model.architecture], **decoder)  # width and heads go together


def test_the_legacy_recipe_is_what_was_published(parse: Callable[[str], Parsed]) -> None:
    _, model, training = parse("--recipe legacy")
    assert training.legacy and not model.standardise_input and not model.norm_pix_loss
    assert (training.learning_rate, training.warmup_steps, training.max_grad_norm) == (1.5e-4, 0, 0)
    assert (training.bf16, training.num_train_epochs, training.effective_batch) == (False, 1000, 1024)


def test_flags_are_over_the_recipe_and_the_recipe_over_the_defaults(
    parse: Callable[[str], Parsed], recipe: Callable[..., Path]
) -> None:
    path = recipe("mask-ratio: 0.5\nseed: 7\nweights: [2]\naugment: false\n")
    data, model, training = parse(f"--recipe {path}")
    assert (data.weights, model.mask_ratio, training.seed, training.augment) == ([2.0], 0.5, 7, False)
    data, model, training = parse(f"--seed 8 --mask-ratio=0.6 --recipe {path} --augment")
    assert (model.mask_ratio, training.seed, training.augment) == (0.6, 8, True)
    assert training.weight_decay == 0.05


def test_a_recipe_may_be_json_and_name_everything(tmp_path: Path, recipe: Callable[..., Path]) -> None:
    values = {"dataset": ["a", "b"], "weights": [3, 1], "output_dir": str(tmp_path / "out"), "max_grad_norm": 1}
    data, _, training = parse_arguments(["--recipe", str(recipe(json.dumps(values), "mine.json"))])
    assert data.dataset == ["a", "b"] and data.weights == [3.0, 1.0]
    assert training.output_dir == str(tmp_path / "out") and isinstance(training.max_grad_norm, float)


def test_a_number_that_yaml_takes_for_a_text_is_a_number(
    parse: Callable[[str], Parsed], recipe: Callable[..., Path]
) -> None:
    assert yaml.safe_load("1e-4") == "1e-4"
    assert parse(f"--recipe {recipe('learning_rate: 1e-4')}")[2].learning_rate == 1e-4


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
        ("weights: [1, two]", "mine.yaml: weights is [1, 'two'], but must be a list or null"),
        ("ema_decay: [0.9]", "mine.yaml: ema_decay is [0.9], but must be a number or null"),
        ("- seed", "mine.yaml: is not a recipe"),
        ("", "mine.yaml: is not a recipe"),
        ("seed: [1", "mine.yaml: is not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_told_in_a_line_with_file_and_key(
    text: str, line: str, parse: Callable[[str], Parsed], recipe: Callable[..., Path]
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
def test_a_recipe_that_is_not_there_is_told_with_those_that_are(
    name: str, line: str, parse: Callable[[str], Parsed]
) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        parse(f"--recipe {name}")


@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_the_recipe_of_a_run_repeats_it_and_names_no_place(
    name: str, parse: Callable[[str], Parsed], tmp_path: Path
) -> None:
    first = parse(f"--recipe {name} --seed 3 --warmup_steps 12 --effective_batch 32 --init_from {tmp_path}")
    values = used_recipe(*first)
    write_recipe(tmp_path / "recipe.yaml", values)
    assert str(tmp_path) not in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    again = parse(f"--recipe {tmp_path / 'recipe.yaml'}")
    assert used_recipe(*again) == values
    assert again[2].learning_rate == first[2].learning_rate and again[2].warmup_steps == 12
    assert again[2].legacy == (name == "legacy")


# --------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize("flag", ["--output", "--output_dir", "--output-dir"])
def test_the_output_has_the_name_of_the_other_verbs_too(flag: str, tmp_path: Path) -> None:
    assert parse_arguments(["--dataset", "a", flag, str(tmp_path)])[2].output_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--mask-ration 0.5", "--mask-ration is no argument; did you mean --mask_ratio?"),
        ("--learning_rat=3", "--learning_rat=3 is no argument; did you mean --learning_rate?"),
        ("--seed x", "argument --seed: invalid int value: 'x'"),
        ("--seed -1", "seed is -1"),
        ("--mask_ratio 1", "mask_ratio is 1.0"),
        ("--architecture stedfm-vit-smal", "is unknown; did you mean stedfm-vit-small?"),
        ("--weights 1 2", "one for each of 1 data sets"),
        ("--weights 0", "must be above 0"),
        ("--warmup_share 1", "warmup_share is 1.0"),
        ("--ema_decay 1", "ema_decay is 1.0"),
        ("--effective_batch 0", "effective_batch is 0"),
        ("--effective_batch 1031", "the nearest that can: 1030 or 1032"),
        ("--logging_steps 30", "logging_steps 30 does not divide save_steps 1000 and check_steps 1000"),
        ("--logging_steps 400 --save_steps 100 --check_steps 0", "the nearest that does: 100"),
        ("--lr_scheduler_type cosin", "cosin is not a valid SchedulerType"),
        ("--fp16 --bf16", "At most one of fp16 and bf16"),
        ("--deepspeed zero4", "give zero1, zero2, zero3 or a JSON file"),
        ("--device tpu", "invalid choice: 'tpu'"),
    ],
)
def test_a_wrong_flag_is_told_in_a_line(
    words: str, line: str, parse: Callable[[str], Parsed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.training.arguments.find_spec", lambda name: name)  # DeepSpeed need not be there
    with pytest.raises(UserError) as caught:
        parse(words)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_what_must_be_named_is_asked_for() -> None:
    with pytest.raises(UserError, match="give --dataset"):
        parse_arguments(["--output_dir", "run"])
    with pytest.raises(UserError, match="give --output_dir"):
        parse_arguments(["--dataset", "crops"])


@pytest.mark.parametrize(("words", "extra"), [("--deepspeed zero1", "deepspeed"), ("--report_to tensorboard",) * 2])
def test_an_extra_that_is_missing_is_named(
    words: str, extra: str, parse: Callable[[str], Parsed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.training.arguments.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'stedfm-hf\[" + extra.split()[-1]):
        parse(words)


@pytest.mark.parametrize(
    "kinds",
    [
        KINDS,
        (classification.DataArguments, classification.ModelArguments, classification.ClassificationArguments),
        (segmentation.DataArguments, segmentation.ModelArguments, segmentation.SegmentationArguments),
    ],
)
def test_every_argument_of_ours_is_explained_in_words_of_its_own(kinds: tuple[type, ...]) -> None:
    internal = set("remove_unused_columns label_names logging_nan_inf_filter ddp_find_unused_parameters".split())
    internal.add("save_total_limit")  # nothing to choose in a fine-tuning
    own = {
        name
        for kind in kinds
        for each in kind.__mro__
        if each.__module__.startswith("stedfm_hf")
        for name in each.__annotations__
    }
    named = {field.name: field for kind in kinds for field in fields(kind)}
    helps = {name: named[name].metadata.get("help") for name in own & named.keys() - internal}
    assert all(helps.values()), [name for name, text in helps.items() if not text]
    assert len(set(helps.values())) == len(helps)


def test_the_help_shows_ours_and_not_the_hundred_others(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(["--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "--mask_ratio" in shown and "--torch_compile" in shown
    assert "--neftune_noise_alpha" not in shown
    assert shown.endswith("\nExample: stedfm pretrain --recipe small --dataset my-crops --output_dir run\n")


# --------------------------------------------------------------------------------------------- what is settled


@pytest.mark.parametrize(
    ("words", "rate", "warmup"),
    [
        ("", 6e-4, 0.05),
        ("--effective_batch 256", 1.5e-4, 0.05),
        ("--effective_batch 512 --base_learning_rate 1e-3 --warmup_share 0.1", 2e-3, 0.1),
        ("--effective_batch 512 --learning_rate 1e-3 --warmup_steps 0", 1e-3, 0),
    ],
)
def test_the_learning_rate_goes_with_the_batch_unless_it_is_given(
    words: str, rate: float, warmup: float, parse: Callable[[str], Parsed]
) -> None:
    training = parse(words)[2]
    assert training.learning_rate == pytest.approx(rate) and training.warmup_steps == warmup


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_process_takes_what_its_architecture_allows(architecture: str, parse: Callable[[str], Parsed]) -> None:
    training = parse(f"--architecture {architecture}")[2]
    assert training.per_device_train_batch_size == MAX_PER_DEVICE_BATCH[architecture]
    assert training.gradient_accumulation_steps == 1024 // MAX_PER_DEVICE_BATCH[architecture]
    assert parse("--max_per_device_batch 32")[2].gradient_accumulation_steps == 32


def test_what_the_trainer_needs_is_set(parse: Callable[[str], Parsed]) -> None:
    training = parse("--device cpu")[2]
    assert training.use_cpu and training.device.type == "cpu" and training.bf16 is False
    assert training.label_names == [] and not training.remove_unused_columns and training.report_to == []
    assert not training.logging_nan_inf_filter and training.ddp_find_unused_parameters is False
    assert (training.eval_strategy, training.eval_steps) == ("steps", 1000)
    assert parse("--check_steps 0")[2].eval_strategy == "no"
    assert parse("--device cpu --bf16")[2].bf16 is True
    again = replace(training, seed=5)
    assert (again.describe_batch(), again.learning_rate) == (training.describe_batch(), training.learning_rate)


def test_a_token_is_not_shown(parse: Callable[[str], Parsed]) -> None:
    assert "hf_secret" not in repr(parse("--hub_token hf_secret")[2])


def test_two_processes_share_the_batch(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from stedfm_hf.training.arguments import parse_arguments\n"
        "training = parse_arguments()[2]\n"
        "open(f'{training.output_dir}/{training.process_index}', 'w').write(training.describe_batch())\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    words = ["--recipe", "64-p8", "--dataset", "x", "--output", str(tmp_path), "--max_per_device_batch", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*command, *words], capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr
    expected = "effective batch 64 = 2 processes x 8 crops x 4 accumulated"
    assert [(tmp_path / rank).read_text(encoding="utf-8") for rank in "01"] == [expected] * 2


# --------------------------------------------------------------------------------------------- files beside


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_deepspeed_files_leave_to_the_arguments_what_these_decide(stage: int) -> None:
    config: dict[str, Any] = json.loads(
        (RECIPES.parent / "deepspeed_configs" / f"zero{stage}.json").read_text("utf-8")
    )
    assert config["zero_optimization"]["stage"] == stage
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert config[key] == "auto"
    assert config["gradient_clipping"] == config["bf16"]["enabled"] == "auto"
    assert "optimizer" not in config and "scheduler" not in config  # ours: decay of matrices only, one cosine


def test_fsdp_wraps_a_layer_that_there_is() -> None:
    from stedfm_hf.modeling import layers_stedfm

    config = yaml.safe_load((RECIPES.parent / "accelerate_configs" / "fsdp2.yaml").read_text(encoding="utf-8"))
    assert config["fsdp_config"]["fsdp_version"] == 2
    assert hasattr(layers_stedfm, config["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash")
def test_the_slurm_script_is_valid_and_hands_everything_on(tmp_path: Path) -> None:
    script = RECIPES.parent / "slurm" / "pretrain.sbatch"
    nodes = "echo node1; sleep 0.5; echo node2"  # a reader that is content with the first would break the pipe
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


def test_a_report_that_there_is_not_is_refused_with_the_nearest(parse: Callable[[str], Parsed]) -> None:
    with pytest.raises(UserError, match="'tensorbord' is unknown; did you mean tensorboard"):
        parse("--recipe tiny --report_to tensorbord")
