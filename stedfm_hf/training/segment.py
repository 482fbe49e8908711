"""Fine-tuning for segmentation: `stedfm finetune segmentation`, or `torchrun ... training/segment.py` (ours).

One run for each seed, in one process or shared by many under a launcher; a run that was killed goes on, when the same
command is given again, from its newest whole checkpoint, to the same figures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from stedfm_hf.evaluation.annotated import class_warnings
from stedfm_hf.inference.loading import weights_sha256
from stedfm_hf.inference.packaged import PACKAGED
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.training.curve import CURVE_FILE, RowsFile
from stedfm_hf.training.finetuning.checks import chosen_figure
from stedfm_hf.training.finetuning.feeding import Feed, training_side
from stedfm_hf.training.finetuning.folder import Folder
from stedfm_hf.training.finetuning.network import DRAWN, network_config, processor_of, source_of
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
from stedfm_hf.training.segmentation.arguments import (
    DataArguments,
    ModelArguments,
    SegmentationArguments,
    parse_arguments,
)
from stedfm_hf.training.segmentation.card import write_card
from stedfm_hf.training.segmentation.feeding import Side, TrainingCrops, crops_in, read_side, warnings_of
from stedfm_hf.training.segmentation.material import check_choice, draw, read_material
from stedfm_hf.training.segmentation.network import new_network
from stedfm_hf.training.segmentation.outcome import finish_run
from stedfm_hf.training.segmentation.scoring import FIGURES
from stedfm_hf.training.segmentation.trainer import SegmentationTrainer

VERB = "finetune segmentation"
HEADLINE = ("iou", "dice", "aupr")


@quiet_transformers(errors_only=True)
def finetune_segmentation(
    data: DataArguments, model: ModelArguments, arguments: SegmentationArguments
) -> FinetuningResult:
    """Trains a segmenter on annotated images, once for every seed.

    Args:
        data: what is trained on.
        model: what is trained.
        arguments: how.

    Returns:
        The folder, and the figures of all seeds.

    Raises:
        UserError: input that cannot be trained on, or a folder that holds something else.

    Example:
        >>> words = "--model demo --dataset annotated --output_dir segmenter --label_count 10"
        >>> sorted(finetune_segmentation(*parse_arguments(words.split())).metrics["test"]["mean"])  # doctest: +SKIP
        ['aupr', 'auroc', 'dice', 'iou', 'loss']
    """
    say = say_on_first(arguments)
    seeds = list(arguments.seeds or [arguments.seed])
    config = network_config(model)
    material = read_material(data, image_size=config.image_size)
    figure = chosen_figure(FIGURES, arguments.choose_by)
    check_choice(material.validation, figure)
    draws = {seed: draw(material.train, data, seed) for seed in seeds}
    is_new = model.mode in DRAWN
    weights = None if is_new else weights_sha256(source_of(model))
    folder = Folder(VERB, data, model, arguments, material, weights=weights)
    if (finished := folder.begin(seeds, say)) is not None:
        return FinetuningResult(folder.path, finished, {}, HEADLINE)
    if model.model in PACKAGED and not is_new:
        say(f"{model.model}: {PACKAGED[model.model]}")
    for warning in class_warnings({"train": material.train} | material.sides()):
        say(warning)
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
        shapes, places = [item.image.shape[1:] for item in train.items], train.data.places.tolist()
        side = training_side(shapes, places, image_size=config.image_size, patch_size=config.patch_size)
        for warning in warnings_of(train, shapes, side=side, image_size=config.image_size):
            say(f"seed {seed}: {warning}")
        crops = [crops_in(int(size), side) for size in train.data.sizes]
        run = run_folder(folder.path, seed)
        steps = arguments.steps_for(sum(crops_in(int(size), side) for size in material.train.sizes), sum(crops))
        args = arguments_of_run(seed, arguments, run, steps)
        say(f"seed {seed}: {len(crops):,} training images, {args.max_steps:,} steps of crops of {side} pixels")
        finished_run = Finished(run, seed, processor, RowsFile(run / CURVE_FILE, CheckRow))
        samples = TrainingCrops(
            train.items,
            crops=crops,
            side=side,
            seed=seed,
            background=train.data.background,
            min_annotated=data.min_annotated,
        )
        _run(finished_run, model, args, train, samples, sides, figure, say)
    metrics = folder.end(seeds, failed, sides, lambda summary: write_card(folder, summary, sides))
    return FinetuningResult(folder.path, metrics, failed, HEADLINE)


def _run(
    run: Finished,
    model: ModelArguments,
    args: SegmentationArguments,
    train: Side,
    samples: TrainingCrops,
    sides: dict[str, Side],
    figure: str,
    say: Callable[[str], None],
) -> None:
    """The run of one seed, from its newest checkpoint to its finished folder."""
    network = new_network(model, train.data, seed=run.seed, images=(item.image for item in train.items))
    trainer = SegmentationTrainer(
        model=network,
        args=args,
        feed=Feed(samples, args),
        validation=sides["validation"],
        figure=figure,
        processing_class=run.processor,
    )
    trainer.watch_with(CheckWatch(run.curve, figure=figure, patience=args.early_stopping_patience, say=say))
    trainer.train_on(say)
    finish_run(run, trainer, drawn=train.data, sides=sides)
    trainer.accelerator.wait_for_everyone()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the fine-tuning that the words ask for, and returns the exit status."""
    return run_script(lambda words: finetune_segmentation(*parse_arguments(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
