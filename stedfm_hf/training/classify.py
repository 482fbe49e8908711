"""Fine-tuning for classification: `stedfm finetune classification`, or `torchrun ... training/classify.py` (ours).

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

from stedfm_hf.runs import counted
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.training.classification.arguments import (
    ClassificationArguments,
    DataArguments,
    ModelArguments,
    parse_arguments,
)
from stedfm_hf.training.classification.card import write_card
from stedfm_hf.training.classification.feeding import Side, TrainingImages, read_side
from stedfm_hf.training.classification.material import draw, read_splits
from stedfm_hf.training.classification.network import new_network
from stedfm_hf.training.classification.objective import objective_for
from stedfm_hf.training.classification.outcome import finish_run
from stedfm_hf.training.classification.scoring import FIGURES
from stedfm_hf.training.classification.trainer import Checked, ClassificationTrainer
from stedfm_hf.training.finetuning.checks import chosen_figure
from stedfm_hf.training.finetuning.feeding import Feed, training_side
from stedfm_hf.training.finetuning.folder import Folder
from stedfm_hf.training.finetuning.network import network_config
from stedfm_hf.training.finetuning.outcome import Finished
from stedfm_hf.training.finetuning.running import FinetuningResult, arguments_of_run, run_script, say_on_first
from stedfm_hf.training.finetuning.seeds import run_seeds

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
    config = network_config(model)
    splits = read_splits(data)
    figure = chosen_figure(FIGURES[splits.train.task], arguments.choose_by)

    def train(run: Finished, drawn: Side, sides: Mapping[str, Side]) -> None:
        steps = arguments.steps_for(len(splits.train), len(drawn.data))
        args = arguments_of_run(run.seed, arguments, run.folder, steps)
        say(f"seed {run.seed}: {counted(len(drawn.data), 'training image')}, {counted(steps, 'step')}")
        network = new_network(model, drawn.data, seed=run.seed, images=drawn.items)
        objective = objective_for(
            drawn.data, balanced=args.class_weights == "balanced", smoothing=args.label_smoothing_factor
        )
        side = training_side(
            [image.shape[1:] for image in drawn.items],
            drawn.data.places.tolist(),
            image_size=config.image_size,
            patch_size=config.patch_size,
        )
        targets = objective.targets(drawn.data.labels)
        samples = TrainingImages(drawn.items, targets, side=side, seed=run.seed, augment=args.augment)
        trainer = ClassificationTrainer(
            model=network,
            args=args,
            feed=Feed(samples, args),
            objective=objective,
            training=drawn.items,
            validation=Checked(sides["validation"].items, sides["validation"].data.labels),
            figure=figure,
            frozen=model.mode == "linear-probe",
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
        say=say,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the fine-tuning that the words ask for, and returns the exit status."""
    return run_script(lambda words: finetune_classification(*parse_arguments(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
