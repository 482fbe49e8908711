"""Conversion of settings to `transformers.TrainingArguments` at the start of a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments

from stedfm_hf.inference.loading import choose_device, has_fast_bfloat16
from stedfm_hf.runs import UserError
from stedfm_hf.training.checks import deepspeed_file
from stedfm_hf.training.effective_batch import world_size
from stedfm_hf.training.settings import TrainingSettings

FIXED: dict[str, Any] = {
    "disable_tqdm": True,
    "remove_unused_columns": False,
    "label_names": [],
    "logging_nan_inf_filter": False,
    "ddp_find_unused_parameters": False,
}
"""Arguments that the trainers of this package require."""
_CONVERTED = {"report_to", "deepspeed", "push_to_hub", "hub_model_id", "hub_private_repo", "eval_steps"}


def compose_arguments(settings: TrainingSettings) -> TrainingArguments:
    """Compose the training arguments; this selects the device and, under a launcher, joins the other processes.

    Args:
        settings: Settings of the training.

    Raises:
        UserError: transformers refuses the values.
    """
    known = {each.name for each in dataclasses.fields(TrainingArguments)} - _CONVERTED
    values = {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings) if each.name in known}
    size, times = settings.split_batch()
    eval_steps = getattr(settings, "eval_steps", 0)
    values |= FIXED | {
        "output_dir": str(settings.output),
        "max_steps": settings.step_limit or -1,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": times,
        "learning_rate": settings.peak_learning_rate,
        "warmup_steps": settings.warmup_ratio if values.get("warmup_steps") is None else values["warmup_steps"],
        "report_to": settings.report_to or "none",
        "eval_strategy": "steps" if eval_steps else "no",
        "eval_steps": eval_steps or None,
    }
    if (name := getattr(settings, "deepspeed", None)) is not None:
        values["deepspeed"] = str(deepspeed_file(name))
    try:
        extra = parse_extra(settings.training_arguments)
        arguments = TrainingArguments(**values | _device_and_precision(settings, extra) | extra)
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from error
    # Without a launcher, use one GPU; the library would use DataParallel on all of them.
    arguments._n_gpu = min(1, arguments._n_gpu)
    if arguments.world_size != world_size():
        raise UserError(f"there are {arguments.world_size} processes, but WORLD_SIZE is not set; start with torchrun")
    return arguments


def parse_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Convert words of the command line to the types of `transformers.TrainingArguments`.

    Args:
        extra: Values by name; lists hold words of the command line, other values are kept.

    Raises:
        UserError: A word cannot be converted.

    Example:
        >>> parse_extra({"adam_epsilon": ["1e-6"], "torch_compile": [], "run_name": "first"})
        {'run_name': 'first', 'adam_epsilon': 1e-06, 'torch_compile': True}
    """
    words = {name: value for name, value in extra.items() if isinstance(value, list)}
    found = {name: value for name, value in extra.items() if name not in words}
    parser = HfArgumentParser(TrainingArguments, allow_abbrev=False)
    parser.error = _refuse
    parsed = vars(parser.parse_args([text for name, each in words.items() for text in (f"--{name}", *map(str, each))]))
    return found | {each: parsed[each] for each in (name.removeprefix("no_") for name in words)}


def _refuse(message: str) -> Any:
    raise UserError(message)


def _device_and_precision(settings: TrainingSettings, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for the device, and for bfloat16 on GPUs that support it unless another type is given."""
    # Explicit, because processes on CPUs need it to connect, and to compute in bfloat16.
    device = choose_device(settings.device)
    use_cpu = bool(extra.get("use_cpu")) or device.type == "cpu" or not torch.accelerator.is_available()
    automatic = settings.precision == "auto" and not {"bf16", "fp16"} & extra.keys()
    bf16 = automatic and device.type == "cuda" and not use_cpu and has_fast_bfloat16(device)
    return {
        "use_cpu": use_cpu,
        "bf16": bf16 or settings.precision == "bfloat16",
        "fp16": settings.precision == "float16",
    }
