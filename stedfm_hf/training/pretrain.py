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

from transformers.trainer import TRAINING_ARGS_NAME

from stedfm_hf.data.repository.files import find_split
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs.quiet import quiet_transformers, warnings_as_notes
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.training.averaging import EncoderAverage
from stedfm_hf.training.batches import EndlessBatches
from stedfm_hf.training.callbacks import MonitorCallback
from stedfm_hf.training.card import describe_machine, precision_of, write_card
from stedfm_hf.training.curve import CURVE_FILE, Curve
from stedfm_hf.training.figures import save_figures
from stedfm_hf.training.held_out_evaluation import find_held_out_crops
from stedfm_hf.training.network import network_config, new_network, pixel_statistics, unpartitioned_weights
from stedfm_hf.training.preparation import Preparation
from stedfm_hf.training.settings import PretrainSettings
from stedfm_hf.training.streamed_run import PretrainResult, StreamedRun
from stedfm_hf.training.trainer import PretrainingTrainer

AVERAGE_FOLDER = "average"


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
    run = StreamedRun(settings)
    batches = run.batches()
    config = network_config(settings)
    preparation = Preparation(
        settings.seed,
        image_size=config.image_size,
        patches=(config.image_size // config.patch_size) ** 2,
        augment=settings.augment,
        flips_only=settings.protocol == "reference",
    )
    run.check_sizes(preparation.image_size)
    mean, std = pixel_statistics(run.splits[0], preparation, settings.seed)
    with unpartitioned_weights(run.arguments):
        network = new_network(settings, mean=mean, std=std)
    return run.write_folder(batches, lambda: _train(run, network, batches, preparation), results=["config.json"])


def _train(
    run: StreamedRun[PretrainSettings],
    network: StedFmForPreTraining,
    batches: EndlessBatches,
    preparation: Preparation,
) -> int:
    """Train from the newest complete checkpoint or from the start, and return the number of steps of the whole run.

    Checkpoints and the curve are written during the training; model, figures and model card at its end (`_finish`).
    Held-out crops are evaluated every `eval_steps`, if that is set.
    """
    settings, held_out = run.settings, None
    if settings.eval_steps:
        # The training split of another data set is only used for the nearest-neighbour classification.
        evaluated = [find_split(name, settings.train_split) for name in settings.validation_dataset] or run.splits
        held_out = find_held_out_crops(evaluated, preparation, split=settings.validation_split, report=run.report)
    trainer = PretrainingTrainer(
        settings=settings,
        model=network,
        args=run.arguments,
        batches=batches,
        preparation=preparation,
        held_out=held_out,
        average=EncoderAverage(network.stedfm, settings.ema_decay) if settings.ema_decay else None,
        processing_class=StedFmImageProcessor(patch_size=network.config.patch_size),
    )
    curve = Curve(settings.folder / CURVE_FILE)
    monitor = MonitorCallback(curve, report=run.report, has_total=trainer.time_limit is None)
    trainer.train_with(monitor, run.report)
    _finish(run, trainer, curve)
    return trainer.state.global_step


def _finish(run: StreamedRun[PretrainSettings], trainer: PretrainingTrainer, curve: Curve) -> None:
    """Write the model, its moving average if there is one, the figures and the model card.

    Every process must make this call, because saving may collect the weights from all; only the first process writes
    the rest.
    """
    settings, arguments = run.settings, run.arguments
    folder = settings.folder
    trainer.save_model(str(folder))
    reconstructions = trainer.reconstructions()
    if not run.writes:
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
        train=run.splits,
        rows=rows,
        steps=trainer.state.global_step,
        samples=trainer.samples,
        architecture=settings.architecture,
        recipe=settings.recipe() | {"learning_rate": settings.peak_learning_rate},
        init_from=settings.init_from,
        name=settings.hub_model_id if settings.push_to_hub else None,
        licence=settings.licence,
        machine=describe_machine(arguments.world_size, arguments.device),
        precision=precision_of(arguments),
        held_out_crops=None if trainer.held_out is None else len(trainer.held_out),
    )
