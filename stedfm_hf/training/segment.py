"""Fine-tuning for segmentation: `stedfm finetune segmentation`, or `torchrun ... training/segment.py` (ours).

One run for each seed, in one process or shared by many under a launcher; a run that was killed goes on, when the same
command is given again, from its newest whole checkpoint, to the same figures.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial

from stedfm_hf.runs.threads import wait_passively

if __name__ == "__main__":  # before torch is imported
    wait_passively()

from stedfm_hf.labels.annotated import class_warnings
from stedfm_hf.runs import counted
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.training.finetuning.checks import chosen_figure
from stedfm_hf.training.finetuning.feeding import Feed
from stedfm_hf.training.finetuning.folder import Folder
from stedfm_hf.training.finetuning.network import network_config
from stedfm_hf.training.finetuning.outcome import Finished
from stedfm_hf.training.finetuning.running import FinetuningResult, arguments_of_run, run_script, say_on_first
from stedfm_hf.training.finetuning.seeds import run_seeds
from stedfm_hf.training.segmentation.arguments import (
    DataArguments,
    ModelArguments,
    SegmentationArguments,
    parse_arguments,
)
from stedfm_hf.training.segmentation.card import write_card
from stedfm_hf.training.segmentation.feeding import (
    Side,
    TrainingCrops,
    crop_side,
    crops_in,
    read_side,
    warnings_of,
)
from stedfm_hf.training.segmentation.material import check_choice, class_notes, draw, memory_warnings, read_splits
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
    config = network_config(model)
    splits = read_splits(data, image_size=config.image_size)
    figure = chosen_figure(FIGURES, arguments.choose_by)
    check_choice(splits.validation, figure)

    def train(run: Finished, drawn: Side, sides: Mapping[str, Side]) -> None:
        shapes = [item.image.shape[1:] for item in drawn.items]
        side = crop_side(shapes, image_size=config.image_size, patch_size=config.patch_size)
        for warning in warnings_of(drawn, shapes, side=side, image_size=config.image_size):
            say(f"seed {run.seed}: {warning}")
        crops = [crops_in(height * width, side) for height, width in shapes]
        in_all = sum(crops_in(int(pixels), side) for pixels in splits.train.sizes)
        steps = arguments.steps_for(in_all, sum(crops))
        args = arguments_of_run(run.seed, arguments, run.folder, steps)
        images = counted(len(crops), "training image")
        say(f"seed {run.seed}: {images}, {counted(steps, 'step')} of crops of {side} pixels")
        network = new_network(model, drawn.data, seed=run.seed, images=(item.image for item in drawn.items))
        samples = TrainingCrops(
            drawn.items,
            crops=crops,
            side=side,
            seed=run.seed,
            background=drawn.data.background,
            min_annotated=data.min_annotated,
        )
        trainer = SegmentationTrainer(
            model=network,
            args=args,
            feed=Feed(samples, args),
            validation=sides["validation"],
            figure=figure,
            processing_class=run.processor,
        )
        trainer.train_on(run.curve, say)
        finish_run(run, trainer, drawn=drawn.data, sides=sides)
        trainer.accelerator.wait_for_everyone()

    return run_seeds(
        Folder(VERB, data, model, arguments, splits),
        {seed: draw(splits.train, data, seed) for seed in arguments.seeds or [arguments.seed]},
        config,
        read=partial(read_side, channels=config.num_channels),
        train=train,
        write_card=write_card,
        headline=HEADLINE,
        notes=[
            *class_notes(splits.train),
            *class_warnings(splits.named()),
            *memory_warnings(splits.held_out()),
        ],
        say=say,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the fine-tuning that the words ask for, and returns the exit status."""
    return run_script(lambda words: finetune_segmentation(*parse_arguments(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
