"""Training of a diffusion model: `stedfm pretrain generation`, or `torchrun ... training/generate.py`.

The samples, times and noise of a step do not depend on the number of processes. The same command resumes an
interrupted run from its newest complete checkpoint, with bitwise identical results.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before torch is imported
    from stedfm_hf.runs.command_line import run_script
    from stedfm_hf.training.generation.settings import RECIPES, GenerationSettings

    name = "stedfm_hf.training.generate:pretrain_generation"
    sys.exit(run_script("generation", name, settings=GenerationSettings, recipes=RECIPES))

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainingArguments

from stedfm_hf.data.repository.files import SplitFiles, find_split, find_split_names
from stedfm_hf.data.streaming.stream import CropStream
from stedfm_hf.hub.publish import publish
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.modeling.unet_stedfm import StedFmUNet
from stedfm_hf.runs import UserError
from stedfm_hf.runs.output import open_output
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.quiet import quiet_transformers, warnings_as_notes
from stedfm_hf.runs.recipes import write_recipe
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.training.arguments import compose_arguments
from stedfm_hf.training.averaging import WeightAverage
from stedfm_hf.training.batches import EndlessBatches, MixedSplit, divide_batch
from stedfm_hf.training.card import name_of
from stedfm_hf.training.checkpoints import checkpoint_folder, checkpoint_steps, newest_complete
from stedfm_hf.training.curve import CURVE_FILE, CurveFile
from stedfm_hf.training.generation.conditions import ClassCondition, Condition, EmbeddingCondition, class_names
from stedfm_hf.training.generation.curve import GenerationMonitor, GenerationRow
from stedfm_hf.training.generation.evaluation import SHEETS, GenerationEvaluator
from stedfm_hf.training.generation.folder import PIPELINE_INDEX, write_results
from stedfm_hf.training.generation.network import DenoisingNetwork, new_unet, standardise_condition
from stedfm_hf.training.generation.objective import DiffusionObjective
from stedfm_hf.training.generation.preparation import GenerationPreparation
from stedfm_hf.training.generation.settings import GenerationSettings
from stedfm_hf.training.generation.trainer import GenerationTrainer
from stedfm_hf.training.pretrain import RECIPE_FILE, PretrainResult, check_sizes, identity_of
from stedfm_hf.training.time_limit import TimeLimit

Report = Callable[[str], None]


@dataclass(frozen=True)
class _Parts:
    """Parts of a training that depend on the data and on the encoder."""

    train: list[SplitFiles]
    batches: EndlessBatches
    preparation: GenerationPreparation
    condition: Condition
    encoder: Encoder | None
    classes: tuple[str, ...]
    objective: DiffusionObjective
    unet: StedFmUNet


@takes_settings(GenerationSettings)
@quiet_transformers()
@warnings_as_notes()
def pretrain_generation(settings: GenerationSettings) -> PretrainResult:
    """Train a diffusion model that generates images from embeddings or classes.

    The output folder receives checkpoints, `curve.csv`, sheets of samples, `recipe.yaml`, `manifest.json` and finally
    the pipeline, which `StedFmGenerationPipeline.from_pretrained(output)` loads. Another call with the same settings
    resumes from the newest complete checkpoint.

    Returns:
        Folder of the pipeline, and the numbers of steps and samples.

    Raises:
        UserError: The data set does not fit the network or the batch, the encoder cannot be loaded, the folder holds
            another run, or the training diverged.

    Example:
        >>> pretrain_generation(["crops"], model="demo", output="run").steps  # doctest: +SKIP
        26250
    """
    arguments = compose_arguments(settings)
    writes = arguments.process_index == 0
    report = print_note if writes else _silent
    parts = _parts(settings, arguments)
    if settings.step_limit is None:
        steps_per_epoch = parts.batches.batches_per_epoch[0] // arguments.gradient_accumulation_steps
        arguments.max_steps = max(1, round(settings.num_train_epochs * steps_per_epoch))
    with open_output(
        settings.output,
        settings.command,
        settings,
        results=[PIPELINE_INDEX],
        temporary=[SHEETS, *(checkpoint_folder(settings.folder, n).name for n in checkpoint_steps(settings.folder))],
        resolved={
            "max_steps": arguments.max_steps,
            "image_size": parts.preparation.image_size,
            "data": [identity_of(files) for files in parts.train],
        },
        options={"processes": arguments.world_size, "batch": settings.describe_batch()},
        model=None if parts.encoder is None else parts.encoder.name,
        weights_sha256=None if parts.encoder is None else parts.encoder.weights_sha256,
        seed=settings.seed,
        writes=writes,
    ) as output:
        if output.finished:
            output.report_finished()
        else:
            if writes:
                names = ", ".join(name_of(files.repo) for files in parts.train)
                write_recipe(output.path / RECIPE_FILE, settings.recipe(), note=f"trained on {names}")
            output.manifest.options["steps"] = _train(settings, arguments, parts, report)
    if settings.push_to_hub and writes:
        try:
            publish(output.path, str(settings.hub_model_id), public=not settings.hub_private_repo)
        except UserError as error:
            raise UserError(f"{output.path}: is finished, but was not published. {error}") from error
    steps = int(output.manifest.options["steps"])
    return PretrainResult(output.path, output.manifest, steps, steps * settings.effective_batch_size)


def _silent(line: str) -> None:
    """Report nothing: only the first process does."""


def _parts(settings: GenerationSettings, arguments: TrainingArguments) -> _Parts:
    """Load the data and the encoder, and make the network."""
    train = [find_split(name, settings.train_split) for name in settings.dataset]
    size = settings.image_size or _crop_size(train[0])
    check_sizes(train, size)
    preparation = GenerationPreparation(
        settings.seed, image_size=size, augment=settings.augment, condition_dropout=settings.condition_dropout
    )
    encoder: Encoder | None = None
    classes: tuple[str, ...] = ()
    condition: Condition
    if settings.condition == "class":
        condition, classes = ClassCondition(), class_names(train)
        unet = new_unet(settings, image_size=size, condition_dim=None, num_classes=len(classes))
    else:
        encoder = load_encoder(settings.model, device=str(arguments.device), precision="auto")
        if size % encoder.model.config.patch_size:
            raise UserError(
                f"--image-size {size}: must be a multiple of the patch size of {encoder.name}, "
                f"{encoder.model.config.patch_size}"
            )
        condition = embedding = EmbeddingCondition(encoder.model)
        unet = new_unet(settings, image_size=size, condition_dim=encoder.model.config.hidden_size)
        standardise_condition(unet, embedding, train[0], preparation)
    batch_sizes = divide_batch(arguments.per_device_train_batch_size, settings.dataset_weights or [1.0] * len(train))
    batches = EndlessBatches(
        [MixedSplit(files, size) for files, size in zip(train, batch_sizes, strict=True)],
        seed=settings.seed,
        accumulation=arguments.gradient_accumulation_steps,
        rank=arguments.process_index,
        world_size=arguments.world_size,
        open_shards=settings.open_shards,
        threads=settings.workers,
        columns=condition.columns,
    )
    objective = DiffusionObjective(
        settings.noise_schedule, settings.prediction_type, settings.min_snr_gamma or None, settings.value_range
    )
    return _Parts(train, batches, preparation, condition, encoder, classes, objective, unet)


def _crop_size(files: SplitFiles) -> int:
    """Return the shorter side of the crops of a split, in pixels."""
    stream = CropStream(files, batch_size=1, seed=0, epoch=0, rank=0, world_size=1, drop_last=True, workers=0)
    return min(next(iter(stream))["pixels"].shape[2:])


def _train(settings: GenerationSettings, arguments: TrainingArguments, parts: _Parts, report: Report) -> int:
    """Train from the newest complete checkpoint or from the start, and return the number of steps of the whole run."""
    if checkpoint_steps(settings.folder) and newest_complete(settings.folder, _silent) is None:
        report(f"{settings.folder}: no complete checkpoint; starting from the first step")
    rate = f"learning rate {settings.peak_learning_rate:.3g}"
    length = f"{settings.max_seconds:g} seconds" if settings.max_seconds else f"{arguments.max_steps} steps"
    report(f"{settings.describe_batch()}, {rate}, {length}")
    limit = TimeLimit(settings.max_seconds, settings.warmup_ratio) if settings.max_seconds else None
    network = DenoisingNetwork(parts.unet, parts.objective)
    trainer = GenerationTrainer(
        settings=settings,
        model=network,
        args=arguments,
        batches=parts.batches,
        preparation=parts.preparation,
        condition=parts.condition,
        held_out=_evaluator(settings, parts, report) if settings.eval_steps else None,
        average=WeightAverage(parts.unet, settings.ema_decay, ramp=True) if settings.ema_decay else None,
        time_limit=limit,
    )
    curve = CurveFile(settings.folder / CURVE_FILE, GenerationRow)
    # First, because the callbacks of --report-to log the speed that it measures.
    trainer.callback_handler.callbacks.insert(0, GenerationMonitor(curve, report=report, has_total=limit is None))
    trainer.train_to_end(report)
    if arguments.process_index == 0:
        write_results(
            settings,
            trainer,
            curve.rows(),
            train=parts.train,
            encoder=parts.encoder,
            classes=parts.classes,
        )
    trainer.accelerator.wait_for_everyone()
    return trainer.state.global_step


def _evaluator(settings: GenerationSettings, parts: _Parts, report: Report) -> GenerationEvaluator | None:
    """Return the held-out evaluation on the first data set that has the split; None without one."""
    sources: Sequence[str] = settings.validation_dataset or [files.repo for files in parts.train]
    for source in sources:
        if settings.validation_split in find_split_names(source):
            files = find_split(source, settings.validation_split)
            if any((files.repo, files.split) == (each.repo, each.split) for each in parts.train):
                raise UserError(
                    f"{files.repo}: split {files.split!r} is the training split; give another --validation-split"
                )
            return GenerationEvaluator(
                files,
                parts.preparation,
                parts.condition,
                images=settings.evaluation_images,
                steps=settings.evaluation_steps,
                folder=Path(settings.folder) / SHEETS,
            )
    report(f"no data set has a split {settings.validation_split!r}, so there is no held-out evaluation")
    return None
