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

from collections.abc import Sequence
from dataclasses import dataclass

from stedfm_hf.data.repository.files import find_split, find_split_names
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.modeling.unet_stedfm import StedFmUNet
from stedfm_hf.runs import UserError
from stedfm_hf.runs.quiet import quiet_transformers, warnings_as_notes
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.training.averaging import WeightAverage
from stedfm_hf.training.batches import EndlessBatches
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
from stedfm_hf.training.streamed_run import PretrainResult, StreamedRun, crop_shape


@dataclass(frozen=True)
class _Parts:
    """Parts of a training that depend on the data and on the encoder."""

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
    run = StreamedRun(settings)
    parts = _parts(run)
    return run.write_folder(
        parts.batches,
        lambda: _train(run, parts),
        results=[PIPELINE_INDEX],
        temporary=[SHEETS],
        resolved={"image_size": parts.preparation.image_size},
        model=None if parts.encoder is None else parts.encoder.name,
        weights_sha256=None if parts.encoder is None else parts.encoder.weights_sha256,
    )


def _parts(run: StreamedRun[GenerationSettings]) -> _Parts:
    """Load the data and the encoder, and make the network."""
    settings = run.settings
    size = settings.image_size or min(crop_shape(run.splits[0]))
    run.check_sizes(size)
    preparation = GenerationPreparation(
        settings.seed, image_size=size, augment=settings.augment, condition_dropout=settings.condition_dropout
    )
    encoder: Encoder | None = None
    classes: tuple[str, ...] = ()
    condition: Condition
    if settings.condition == "class":
        condition, classes = ClassCondition(), class_names(run.splits)
        unet = new_unet(settings, image_size=size, condition_dim=None, num_classes=len(classes))
    else:
        encoder = load_encoder(settings.model, device=str(run.arguments.device), precision="auto")
        if size % encoder.model.config.patch_size:
            raise UserError(
                f"--image-size {size}: must be a multiple of the patch size of {encoder.name}, "
                f"{encoder.model.config.patch_size}"
            )
        condition = embedding = EmbeddingCondition(encoder.model)
        unet = new_unet(settings, image_size=size, condition_dim=encoder.model.config.hidden_size)
        standardise_condition(unet, embedding, run.splits[0], preparation)
    objective = DiffusionObjective(
        settings.noise_schedule, settings.prediction_type, settings.min_snr_gamma or None, settings.value_range
    )
    return _Parts(run.batches(condition.columns), preparation, condition, encoder, classes, objective, unet)


def _train(run: StreamedRun[GenerationSettings], parts: _Parts) -> int:
    """Train from the newest complete checkpoint or from the start, and return the number of steps of the whole run."""
    settings = run.settings
    trainer = GenerationTrainer(
        settings=settings,
        model=DenoisingNetwork(parts.unet, parts.objective),
        args=run.arguments,
        batches=parts.batches,
        preparation=parts.preparation,
        condition=parts.condition,
        held_out=_evaluator(run, parts) if settings.eval_steps else None,
        average=WeightAverage(parts.unet, settings.ema_decay, ramp=True) if settings.ema_decay else None,
    )
    curve = CurveFile(settings.folder / CURVE_FILE, GenerationRow)
    monitor = GenerationMonitor(curve, report=run.report, has_total=trainer.time_limit is None)
    trainer.train_with(monitor, run.report)
    if run.writes:
        write_results(
            settings,
            trainer,
            curve.rows(),
            train=run.splits,
            encoder=parts.encoder,
            classes=parts.classes,
        )
    trainer.accelerator.wait_for_everyone()
    return trainer.state.global_step


def _evaluator(run: StreamedRun[GenerationSettings], parts: _Parts) -> GenerationEvaluator | None:
    """Return the held-out evaluation on the first data set that has the split; None without one."""
    settings = run.settings
    sources: Sequence[str] = settings.validation_dataset or [files.repo for files in run.splits]
    for source in sources:
        if settings.validation_split in find_split_names(source):
            files = find_split(source, settings.validation_split)
            if any((files.repo, files.split) == (each.repo, each.split) for each in run.splits):
                raise UserError(
                    f"{files.repo}: split {files.split!r} is the training split; give another --validation-split"
                )
            return GenerationEvaluator(
                files,
                parts.preparation,
                parts.condition,
                images=settings.evaluation_images,
                steps=settings.evaluation_steps,
                folder=settings.folder / SHEETS,
            )
    run.report(f"no data set has a split {settings.validation_split!r}, so there is no held-out evaluation")
    return None
