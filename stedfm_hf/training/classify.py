"""Fine-tuning for classification: `stedfm finetune classification`, or `torchrun ... training/classify.py` (ours).

One run for each seed, in one process or shared by many under a launcher; a run that was killed goes on, when the same
command is given again, from its newest whole checkpoint, to the same figures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from stedfm_hf.inference.loading import weights_sha256
from stedfm_hf.inference.packaged import PACKAGED
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.training.classification.arguments import (
    ClassificationArguments,
    DataArguments,
    ModelArguments,
    parse_arguments,
)
from stedfm_hf.training.classification.card import write_card
from stedfm_hf.training.classification.feeding import Side, TrainingImages, read_side
from stedfm_hf.training.classification.material import draw, read_material
from stedfm_hf.training.classification.network import new_network
from stedfm_hf.training.classification.objective import objective_for
from stedfm_hf.training.classification.outcome import finish_run
from stedfm_hf.training.classification.scoring import FIGURES
from stedfm_hf.training.classification.trainer import Checked, ClassificationTrainer
from stedfm_hf.training.curve import CURVE_FILE, RowsFile
from stedfm_hf.training.finetuning.checks import chosen_figure
from stedfm_hf.training.finetuning.feeding import Feed, training_side
from stedfm_hf.training.finetuning.folder import Folder
from stedfm_hf.training.finetuning.network import network_config, processor_of, source_of
from stedfm_hf.training.finetuning.outcome import Finished
from stedfm_hf.training.finetuning.running import (
    FinetuningResult,
    arguments_of_run,
    leave_out,
    run_script,
    say_on_first,
)
from stedfm_hf.training.finetuning.summary import is_finished, run_folder
from stedfm_hf.training.finetuning.watching import CheckRow, CheckWatch

VERB = "finetune classification"
HEADLINE = ("accuracy", "macro_f1", "pearson_r", "r2")


@quiet_transformers(errors_only=True)
def finetune_classification(
    data: DataArguments, model: ModelArguments, arguments: ClassificationArguments
) -> FinetuningResult:
    """Trains a classifier or a regression on labelled images, once for every seed.

    Args:
        data: what is trained on.
        model: what is trained.
        arguments: how.

    Returns:
        The folder, and the figures of all seeds.

    Raises:
        UserError: input that cannot be trained on, or a folder that holds something else.

    Example:
        >>> words = "--model demo --dataset my-crops --output_dir classifier --seeds 1 2 3"
        >>> finetune_classification(*parse_arguments(words.split())).metrics["seeds"]  # doctest: +SKIP
        [1, 2, 3]
    """
    say = say_on_first(arguments)
    seeds = list(arguments.seeds or [arguments.seed])
    config = network_config(model)
    material = read_material(data)
    figure = chosen_figure(FIGURES[material.train.task], arguments.choose_by)
    draws = {seed: draw(material.train, data, seed) for seed in seeds}
    is_new = model.mode == "from-scratch"
    weights = None if is_new else weights_sha256(source_of(model))
    folder = Folder(VERB, data, model, arguments, material, weights=weights)
    if (finished := folder.begin(seeds, say)) is not None:
        return FinetuningResult(folder.path, finished, {}, HEADLINE)
    if model.model in PACKAGED and not is_new:
        say(f"{model.model}: {PACKAGED[model.model]}")
    sides = {name: read_side(each, channels=config.num_channels) for name, each in material.sides().items()}
    say(f"{material.train.name}: {material.counts()}; {material.how}")
    say(f"{arguments.describe_batch()}, learning rate {arguments.learning_rate:.3g}, mode {model.mode}")
    processor = processor_of(config)
    failed: dict[str, str] = {}
    for each in sides.values():
        leave_out(each.failed, failed, say)
    for seed in seeds:
        if is_finished(folder.path, seed):
            say(f"seed {seed}: is finished")
            continue
        train = read_side(draws[seed], channels=config.num_channels)
        leave_out(train.failed, failed, say)
        run = run_folder(folder.path, seed)
        args = arguments_of_run(seed, arguments, run, arguments.steps_for(len(material.train), len(train.data)))
        finished_run = Finished(run, seed, processor, RowsFile(run / CURVE_FILE, CheckRow))
        _run(finished_run, model, args, train, sides, figure, say)
    metrics = folder.end(seeds, failed, sides, lambda summary: write_card(folder, summary, sides))
    return FinetuningResult(folder.path, metrics, failed, HEADLINE)


def _run(
    run: Finished,
    model: ModelArguments,
    args: ClassificationArguments,
    train: Side,
    sides: dict[str, Side],
    figure: str,
    say: Callable[[str], None],
) -> None:
    """The run of one seed, from its newest checkpoint to its finished folder."""
    say(f"seed {run.seed}: {len(train.data):,} training images, {args.max_steps:,} steps")
    network = new_network(model, train.data, seed=run.seed, images=train.items)
    objective = objective_for(
        train.data, balanced=args.class_weights == "balanced", smoothing=args.label_smoothing_factor
    )
    side = training_side(
        [image.shape[1:] for image in train.items],
        train.data.places.tolist(),
        image_size=network.config.image_size,
        patch_size=network.config.patch_size,
    )
    samples = TrainingImages(
        train.items, objective.targets(train.data.labels), side=side, seed=run.seed, augment=args.augment
    )
    trainer = ClassificationTrainer(
        model=network,
        args=args,
        feed=Feed(samples, args),
        objective=objective,
        training=train.items,
        validation=Checked(sides["validation"].items, sides["validation"].data.labels),
        figure=figure,
        frozen=model.mode == "linear-probe",
        processing_class=run.processor,
    )
    trainer.watch_with(CheckWatch(run.curve, figure=figure, patience=args.early_stopping_patience, say=say))
    trainer.train_on(say)
    finish_run(run, trainer, drawn=train.data, sides=sides)
    trainer.accelerator.wait_for_everyone()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the fine-tuning that the words ask for, and returns the exit status."""
    return run_script(lambda words: finetune_classification(*parse_arguments(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
