"""Pretraining of the masked autoencoder: `stedfm pretrain`, or `torchrun ... training/pretrain.py`.

The samples and masks of a step do not depend on the number of processes. The same command resumes an interrupted run
from its newest complete checkpoint, with bitwise identical results.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before torch is imported
    from stedfm_hf.runs.command_line import run_script
    from stedfm_hf.training.settings import RECIPES, PretrainSettings

    name = "stedfm_hf.training.pretrain:pretrain"
    sys.exit(run_script("pretrain", name, settings=PretrainSettings, recipes=RECIPES))

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME

from stedfm_hf.data.repository.files import SplitFiles, find_split
from stedfm_hf.data.streaming.stream import CropStream
from stedfm_hf.hub.publish import publish
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import UserError
from stedfm_hf.runs.output import open_output
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.quiet import quiet_transformers, warnings_as_notes
from stedfm_hf.runs.recipes import write_recipe
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.training.arguments import compose_arguments
from stedfm_hf.training.averaging import EncoderAverage
from stedfm_hf.training.batches import EndlessBatches, MixedSplit, divide_batch
from stedfm_hf.training.callbacks import MonitorCallback
from stedfm_hf.training.card import describe_machine, name_of, write_card
from stedfm_hf.training.checkpoints import checkpoint_folder, checkpoint_steps, newest_complete
from stedfm_hf.training.curve import CURVE_FILE, Curve
from stedfm_hf.training.figures import save_figures
from stedfm_hf.training.held_out_evaluation import find_held_out_crops
from stedfm_hf.training.network import network_config, new_network, pixel_statistics, unpartitioned_weights
from stedfm_hf.training.preparation import Preparation
from stedfm_hf.training.settings import PretrainSettings
from stedfm_hf.training.time_limit import TimeLimit
from stedfm_hf.training.trainer import PretrainingTrainer

RECIPE_FILE = "recipe.yaml"
AVERAGE_FOLDER = "average"
Report = Callable[[str], None]


@dataclass(frozen=True)
class PretrainResult(OutputResult):
    """Result of a pretraining: the folder of the masked autoencoder.

    Attributes:
        output: Model folder in the layout of the Hub.
        manifest: Settings, versions and data.
        steps: Number of optimiser steps.
        samples: Number of crops seen, of all processes together.
    """

    steps: int
    samples: int

    def summary(self) -> str:
        """Return one line for the terminal."""
        return f"{self.output}: {self.steps:,} steps, {self.samples:,} crops seen"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return super().to_json() | {"steps": self.steps, "samples": self.samples}


@takes_settings(PretrainSettings)
@quiet_transformers()
@warnings_as_notes()
def pretrain(settings: PretrainSettings) -> PretrainResult:
    """Pretrain a masked autoencoder on data sets of crops.

    The output folder receives checkpoints, `curve.csv`, figures, `recipe.yaml`, `manifest.json` and finally the model,
    so that `AutoModel.from_pretrained(output)` loads its encoder. Another call with the same settings resumes from the
    newest complete checkpoint.

    Returns:
        Folder of the model, and the numbers of steps and samples.

    Raises:
        UserError: The data set does not fit the model or the batch, the folder holds another run, or the training
            diverged.

    Example:
        >>> pretrain(["crops"], output="run", architecture="stedfm-vit-64-p8").steps  # doctest: +SKIP
        976000
    """
    arguments = compose_arguments(settings)
    writes = arguments.process_index == 0
    report = print_note if writes else _silent
    train = [find_split(name, settings.train_split) for name in settings.dataset]
    batches = _batches(settings, arguments, train)
    config = network_config(settings)
    preparation = Preparation(
        settings.seed,
        image_size=config.image_size,
        patches=(config.image_size // config.patch_size) ** 2,
        augment=settings.augment,
        flips_only=settings.protocol == "reference",
    )
    check_sizes(train, preparation.image_size)
    mean, std = pixel_statistics(train[0], preparation, settings.seed)
    with unpartitioned_weights(arguments):
        network = new_network(settings, mean=mean, std=std)
    if settings.step_limit is None:
        steps_per_epoch = batches.batches_per_epoch[0] // arguments.gradient_accumulation_steps
        arguments.max_steps = max(1, round(settings.num_train_epochs * steps_per_epoch))
    with open_output(
        settings.output,
        settings.command,
        settings,
        results=["config.json"],
        temporary=[checkpoint_folder(settings.folder, step).name for step in checkpoint_steps(settings.folder)],
        resolved={"max_steps": arguments.max_steps, "data": [identity_of(files) for files in train]},
        options={"processes": arguments.world_size, "batch": settings.describe_batch()},
        seed=settings.seed,
        writes=writes,
    ) as output:
        if output.finished:
            output.report_finished()
        else:
            if writes:
                names = ", ".join(name_of(files.repo) for files in train)
                write_recipe(output.path / RECIPE_FILE, settings.recipe(), note=f"trained on {names}")
            steps = _train(settings, arguments, network, batches, preparation, train, report)
            output.manifest.options["steps"] = steps
    if settings.push_to_hub and writes:
        try:
            publish(output.path, str(settings.hub_model_id), public=not settings.hub_private_repo)
        except UserError as error:
            raise UserError(f"{output.path}: is finished, but was not published. {error}") from error
    steps = int(output.manifest.options["steps"])
    return PretrainResult(output.path, output.manifest, steps, steps * settings.effective_batch_size)


def _silent(line: str) -> None:
    """Report nothing: only the first process does."""


def _batches(settings: PretrainSettings, arguments: TrainingArguments, train: Sequence[SplitFiles]) -> EndlessBatches:
    """Return the batches of this process, which mix the data sets by the weights of the settings."""
    batch_sizes = divide_batch(arguments.per_device_train_batch_size, settings.dataset_weights or [1.0] * len(train))
    return EndlessBatches(
        [MixedSplit(files, size) for files, size in zip(train, batch_sizes, strict=True)],
        seed=settings.seed,
        accumulation=arguments.gradient_accumulation_steps,
        rank=arguments.process_index,
        world_size=arguments.world_size,
        open_shards=settings.open_shards,
        threads=settings.workers,
    )


def _train(
    settings: PretrainSettings,
    arguments: TrainingArguments,
    network: StedFmForPreTraining,
    batches: EndlessBatches,
    preparation: Preparation,
    train: Sequence[SplitFiles],
    report: Report,
) -> int:
    """Train from the newest complete checkpoint or from the start, and return the number of steps of the whole run.

    Checkpoints and the curve are written during the training; model, figures and model card at its end (`_finish`).
    Held-out crops are evaluated every `eval_steps`, if that is set.
    """
    if checkpoint_steps(settings.folder) and newest_complete(settings.folder, _silent) is None:
        report(f"{settings.folder}: no complete checkpoint; starting from the first step")
    rate = f"learning rate {settings.peak_learning_rate:.3g}"
    length = f"{settings.max_seconds:g} seconds" if settings.max_seconds else f"{arguments.max_steps} steps"
    report(f"{settings.describe_batch()}, {rate}, {length}")
    held_out = None
    if settings.eval_steps:
        # The training split of another data set is only used for the nearest-neighbour classification.
        evaluated = [find_split(name, settings.train_split) for name in settings.validation_dataset] or train
        held_out = find_held_out_crops(evaluated, preparation, split=settings.validation_split, report=report)
    average = EncoderAverage(network.stedfm, settings.ema_decay) if settings.ema_decay else None
    limit = TimeLimit(settings.max_seconds, settings.warmup_ratio) if settings.max_seconds else None
    trainer = PretrainingTrainer(
        settings=settings,
        model=network,
        args=arguments,
        batches=batches,
        preparation=preparation,
        held_out=held_out,
        average=average,
        time_limit=limit,
        processing_class=StedFmImageProcessor(patch_size=network.config.patch_size),
    )
    curve = Curve(settings.folder / CURVE_FILE)
    # First, because the callbacks of --report-to log the speed that it measures.
    trainer.callback_handler.callbacks.insert(0, MonitorCallback(curve, report=report, has_total=limit is None))
    trainer.train_to_end(report)
    _finish(settings, trainer, curve, train)
    return trainer.state.global_step


def _finish(
    settings: PretrainSettings, trainer: PretrainingTrainer, curve: Curve, train: Sequence[SplitFiles]
) -> None:
    """Write the model, its moving average if there is one, the figures and the model card.

    Every process must make this call, because saving may collect the weights from all; only the first process writes
    the rest.
    """
    folder, arguments = settings.folder, trainer.args
    trainer.save_model(str(folder))
    reconstructions = trainer.reconstructions()
    if arguments.process_index != 0:
        return
    # The library pickles its arguments; the recipe has them already.
    (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
    if trainer.average is not None:
        trainer.average.as_encoder().save_pretrained(folder / AVERAGE_FOLDER)
        trainer.processing_class.save_pretrained(folder / AVERAGE_FOLDER)
    rows = curve.rows()
    save_figures(folder, rows, reconstructions)
    write_card(
        folder,
        trainer.network,
        train=train,
        rows=rows,
        steps=trainer.state.global_step,
        samples=trainer.samples,
        architecture=settings.architecture,
        recipe=settings.recipe() | {"learning_rate": settings.peak_learning_rate},
        init_from=settings.init_from,
        name=settings.hub_model_id if settings.push_to_hub else None,
        licence=settings.licence,
        machine=describe_machine(arguments.world_size, arguments.device),
        precision="bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32",
        held_out_crops=None if trainer.held_out is None else len(trainer.held_out),
    )


def check_sizes(files: Sequence[SplitFiles], image_size: int) -> None:
    """Check that crops are at least as large as the images of the model.

    Args:
        files: Training splits.
        image_size: Image size of the model in pixels.

    Raises:
        UserError: If crops are too small.
    """
    for each in files:
        stream = CropStream(each, batch_size=1, seed=0, epoch=0, rank=0, world_size=1, drop_last=True, workers=0)
        height, width = next(iter(stream))["pixels"].shape[2:]
        if min(height, width) < image_size:
            raise UserError(
                f"{each.repo}: crops of {height} x {width} are smaller than the {image_size} x {image_size} of the "
                f"model; build the data set with --crop-size {image_size} or more"
            )


def identity_of(files: SplitFiles) -> dict[str, Any]:
    """Return values that identify a data set independently of its location.

    Args:
        files: Files of a split.
    """
    shards = "/".join(f"{Path(shard.file).name}:{shard.rows}" for shard in files.shards)
    return {
        "name": Path(files.repo).name,
        "split": files.split,
        "crops": files.rows,
        "shards": hashlib.sha256(shards.encode()).hexdigest()[:16],
    }
