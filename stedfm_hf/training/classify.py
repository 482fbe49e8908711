"""Fine-tuning for classification: `stedfm finetune classification`, or `torchrun ... training/classify.py` (ours).

One run for each seed, in one process or shared by many under a launcher; a run that was killed goes on, when the same
command is given again, from its newest whole checkpoint, to the same figures.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor

from stedfm_hf.inference.loading import weights_sha256
from stedfm_hf.inference.packaged import PACKAGED
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs import EXIT_DONE, EXIT_ITEMS_FAILED, EXIT_USAGE, UserError
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.training.classification.arguments import (
    ClassificationArguments,
    DataArguments,
    ModelArguments,
    parse_arguments,
)
from stedfm_hf.training.classification.feeding import Feed, Side, TrainingImages, read_side, training_side
from stedfm_hf.training.classification.folder import Folder
from stedfm_hf.training.classification.material import Material, read_material
from stedfm_hf.training.classification.network import network_config, new_network, source_of
from stedfm_hf.training.classification.objective import objective_for
from stedfm_hf.training.classification.outcome import finish_run
from stedfm_hf.training.classification.scoring import chosen_figure
from stedfm_hf.training.classification.summary import describe, is_finished, run_folder
from stedfm_hf.training.classification.trainer import Checked, ClassificationTrainer
from stedfm_hf.training.classification.watching import CheckRow, CheckWatch
from stedfm_hf.training.curve import CURVE_FILE, RowsFile


@dataclass(frozen=True)
class ClassificationResult:
    """What a fine-tuning made.

    Args:
        folder: the complete Hub-layout folder of the best model, with a folder for each seed.
        metrics: as they are in its `metrics.json`.
        failed: images that could not be read, with the reason.
    """

    folder: Path
    metrics: dict[str, Any]
    failed: dict[str, str]

    def summary(self) -> str:
        """One line for the terminal."""
        return describe(self.metrics, self.folder)


@quiet_transformers(errors_only=True)
def finetune_classification(
    data: DataArguments, model: ModelArguments, arguments: ClassificationArguments
) -> ClassificationResult:
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
        >>> finetune_classification(*parse_arguments(words.split())).metrics["test"]["mean"]  # doctest: +SKIP
        {'accuracy': 0.93, 'balanced_accuracy': 0.92, 'macro_f1': 0.92}
    """
    say = _say_on_first(arguments)
    seeds = list(arguments.seeds or [arguments.seed])
    config = network_config(model)
    material = read_material(data)
    figure = chosen_figure(material.train.task, arguments.choose_by)
    draws = {seed: material.drawn(data, seed) for seed in seeds}
    source = source_of(model)
    is_new = model.mode == "from-scratch"
    folder = Folder(data, model, arguments, material, weights=None if is_new else weights_sha256(source))
    if (finished := folder.begin(seeds, say)) is not None:
        return ClassificationResult(folder.path, finished, {})
    if model.model in PACKAGED and not is_new:
        say(f"{model.model}: {PACKAGED[model.model]}")
    sides = {name: read_side(each, channels=config.num_channels) for name, each in material.sides().items()}
    say(f"{material.train.name}: {_counts(material)}; {material.how}")
    say(f"{arguments.describe_batch()}, learning rate {arguments.learning_rate:.3g}, mode {model.mode}")
    if source in ARCHITECTURES:
        processor = StedFmImageProcessor(patch_size=config.patch_size)
    else:
        processor = AutoImageProcessor.from_pretrained(source)
    failed = {place: reason for side in sides.values() for place, reason in side.failed.items()}
    for seed in seeds:
        if is_finished(folder.path, seed):
            say(f"seed {seed}: is finished")
            continue
        train = read_side(draws[seed], channels=config.num_channels)
        failed |= train.failed
        _run(seed, model, arguments, train, sides, len(material.train), figure, folder.path, processor, say)
    for place, reason in failed.items():
        say(f"{place}: is left out ({reason})")
    return ClassificationResult(folder.path, folder.end(seeds, failed, sides), failed)


def _run(
    seed: int,
    model: ModelArguments,
    arguments: ClassificationArguments,
    train: Side,
    sides: dict[str, Side],
    all_images: int,
    figure: str,
    output: Path,
    processor: StedFmImageProcessor,
    say: Callable[[str], None],
) -> None:
    """The run of one seed, from its newest checkpoint to its finished folder."""
    folder = run_folder(output, seed)
    args = _arguments_of(seed, arguments, folder, arguments.steps_for(all_images, len(train.data)))
    say(f"seed {seed}: {len(train.data):,} training images, {args.max_steps:,} steps")
    network = new_network(model, train.data, seed=seed, images=train.images)
    objective = objective_for(
        train.data, balanced=args.class_weights == "balanced", smoothing=args.label_smoothing_factor
    )
    side = training_side(
        train.images,
        train.data.places.tolist(),
        image_size=network.config.image_size,
        patch_size=network.config.patch_size,
    )
    samples = TrainingImages(
        train.images, objective.targets(train.data.labels), side=side, seed=seed, augment=args.augment
    )
    feed = Feed(
        samples,
        workers=args.dataloader_num_workers,
        batch_size=args.per_device_train_batch_size or 1,
        accumulation=args.gradient_accumulation_steps or 1,
        rank=args.process_index,
        world_size=args.world_size,
    )
    curve = RowsFile(folder / CURVE_FILE, CheckRow)
    if args.should_save:
        folder.mkdir(parents=True, exist_ok=True)
    trainer = ClassificationTrainer(
        model=network,
        args=args,
        feed=feed,
        objective=objective,
        training=train.images,
        validation=Checked(sides["validation"].images, sides["validation"].data.labels),
        figure=figure,
        frozen=model.mode == "linear-probe",
        processing_class=processor,
    )
    watch = CheckWatch(curve, figure=figure, patience=args.early_stopping_patience, say=say)
    trainer.callback_handler.callbacks.insert(1, watch)  # behind the one that says what is due in a step
    trainer.train_on(say)
    finish_run(folder, trainer, processor, curve, seed=seed, drawn=train.data, sides=sides)
    trainer.accelerator.wait_for_everyone()


def _arguments_of(seed: int, arguments: ClassificationArguments, folder: Path, steps: int) -> ClassificationArguments:
    """Those of the run of one seed."""
    args = copy.copy(arguments)
    args.seed, args.output_dir, args.max_steps = seed, str(folder), steps
    args.eval_strategy = args.save_strategy = args.logging_strategy = "steps"
    args.eval_steps = args.logging_steps = max(1, steps // args.checks)
    args.save_steps = args.eval_steps * args.save_checks
    return args


def _counts(material: Material) -> str:
    parts = {"train": material.train} | material.sides()
    return ", ".join(f"{len(part):,} {name} images" for name, part in parts.items())


def _say_on_first(arguments: ClassificationArguments) -> Callable[[str], None]:
    return (lambda line: print(line, flush=True)) if arguments.process_index == 0 else (lambda line: None)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the fine-tuning that the words ask for, and returns the exit status."""
    try:
        result = finetune_classification(*parse_arguments(argv))
    except UserError as error:
        print(f"stedfm: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    if int(os.environ.get("RANK", "0")) == 0:
        print(result.summary())
    return EXIT_ITEMS_FAILED if result.failed else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
