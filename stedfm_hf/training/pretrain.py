"""Pretraining of the masked autoencoder: `stedfm pretrain`, or `torchrun ... training/pretrain.py` (ours).

One process on a laptop, or many under a launcher: which samples and masks are in step n is the same. A run that was
killed goes on, when the same command is given again, from its newest whole checkpoint, to the same bits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stedfm_hf.runs.threads import wait_passively

if __name__ == "__main__":  # before torch is imported
    wait_passively()

from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from stedfm_hf.data.repository.files import SplitFiles, find_split
from stedfm_hf.data.streaming.stream import CropStream
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import EXIT_DONE, EXIT_USAGE, UserError
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.training.arguments import DataArguments, ModelArguments, PretrainArguments, parse_arguments
from stedfm_hf.training.averaging import EncoderAverage
from stedfm_hf.training.batches import EndlessBatches, Source, share_batch
from stedfm_hf.training.held_out import find_held_out
from stedfm_hf.training.output import Output, PretrainResult
from stedfm_hf.training.preparation import Preparation
from stedfm_hf.training.quick import new_model, own_randomness
from stedfm_hf.training.trainer import PretrainingTrainer
from stedfm_hf.training.watching import Watch

STATISTICS_CROPS = 2048
"""Training crops whose mean and spread the input is standardised by."""


def new_network(model: ModelArguments, *, mean: float, std: float, seed: int) -> StedFmForPreTraining:
    """The network before its first step.

    Raises:
        UserError: the architecture is unknown, or the folder to begin from does not fit.
    """
    if model.init_from is not None:
        try:
            return StedFmForPreTraining.from_pretrained(model.init_from)
        except (OSError, ValueError) as error:
            raise UserError(f"{model.init_from}: cannot be loaded ({' '.join(str(error).split())[:200]})") from error
    if model.architecture not in ARCHITECTURES:
        raise UserError(f"unknown architecture {model.architecture!r}; there are {', '.join(ARCHITECTURES)}")
    chosen: dict[str, Any] = dict(ARCHITECTURES[model.architecture])
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if (value := getattr(model, f"decoder_{name}")) is not None:
            chosen[f"decoder_{name}"] = value
    config = StedFmConfig(**chosen, mask_ratio=model.mask_ratio, norm_pix_loss=model.norm_pix_loss)
    if model.norm_pix_loss or not model.standardise_input:
        with own_randomness(seed):
            return StedFmForPreTraining(config)
    return new_model(config, mean=mean, std=std, seed=seed)


@contextmanager
def whole_weights(arguments: PretrainArguments) -> Iterator[None]:
    """Lets a model be loaded as a new one is made: whole. ZeRO-3 spreads it when the training begins.

    Spread while it is loaded it would need DeepSpeed's own group of processes, which on a CPU is not there yet.
    """
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if (config := getattr(arguments, "hf_deepspeed_config", None)) is not None:
            set_hf_deepspeed_config(config)


def pixel_statistics(files: SplitFiles, preparation: Preparation, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the first training crops of the order, scaled to [0, 1].

    Every process finds the same: the order does not depend on them.
    """
    size = min(256, files.rows)
    stream = CropStream(
        files, batch_size=size, seed=seed, epoch=0, rank=0, world_size=1, drop_last=True, columns=(), workers=1
    )
    count, total, squares = 0, 0.0, 0.0
    for batch in stream:
        pixels = preparation(batch, epoch=0)["pixel_values"].double()
        count += pixels.numel()
        total, squares = total + float(pixels.sum()), squares + float((pixels**2).sum())
        if count >= STATISTICS_CROPS * pixels[0].numel():
            break
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5


def check_sizes(files: Sequence[SplitFiles], image_size: int) -> None:
    """Refuses crops that are smaller than the images of the model.

    Raises:
        UserError: names the data set and the sizes.
    """
    for each in files:
        stream = CropStream(each, batch_size=1, seed=0, epoch=0, rank=0, world_size=1, drop_last=True, workers=0)
        height, width = next(iter(stream))["pixels"].shape[2:]
        if min(height, width) < image_size:
            raise UserError(
                f"{each.repo}: crops of {height} x {width} are smaller than the {image_size} x {image_size} of the "
                f"model; build the data set with --crop {image_size} or more"
            )


def say_on_first(arguments: PretrainArguments) -> Callable[[str], None]:
    """Prints on the first process only."""
    return (lambda line: print(line, flush=True)) if arguments.process_index == 0 else (lambda line: None)


@quiet_transformers()
def pretrain(data: DataArguments, model: ModelArguments, arguments: PretrainArguments) -> PretrainResult:
    """Pretrains a masked autoencoder on data sets of crops.

    The output folder gets checkpoints, `curve.csv`, figures, `recipe.yaml`, `manifest.json` and, at the end, the model
    itself, so that `AutoModel.from_pretrained(output_dir)` loads its encoder. Called again with the same arguments it
    goes on from the newest whole checkpoint.

    Args:
        data: what is trained on.
        model: what is trained.
        arguments: how.

    Returns:
        The folder, and how much was done.

    Raises:
        UserError: the data do not fit the model or the batch, the folder holds another run, or the loss diverged.

    Example:
        >>> words = ["--recipe", "64-p8", "--dataset", "crops", "--output_dir", "run"]
        >>> pretrain(*parse_arguments(words)).folder  # doctest: +SKIP
        PosixPath('run')
    """
    say = say_on_first(arguments)
    train = [find_split(name, data.train_split) for name in data.dataset]
    accumulation = arguments.gradient_accumulation_steps or 1
    shares = share_batch(arguments.per_device_train_batch_size or 1, data.weights or [1.0] * len(train))
    batches = EndlessBatches(
        [Source(files, size) for files, size in zip(train, shares, strict=True)],
        seed=arguments.seed,
        accumulation=accumulation,
        rank=arguments.process_index,
        world_size=arguments.world_size,
        open_shards=data.open_shards,
        threads=data.reader_threads,
    )
    preparation = preparation_for(model, arguments)
    check_sizes(train, preparation.image_size)
    mean, std = pixel_statistics(train[0], preparation, arguments.seed)
    with whole_weights(arguments):
        network = new_network(model, mean=mean, std=std, seed=arguments.seed)
    if arguments.max_steps <= 0:
        steps_per_epoch = batches.batches_per_epoch[0] // accumulation
        arguments.max_steps = max(1, round(arguments.num_train_epochs * steps_per_epoch))
    output = Output(data, model, arguments, train)
    if (finished := output.begin(say)) is not None:
        return finished
    say(f"{arguments.describe_batch()}, learning rate {arguments.learning_rate:.3g}, {arguments.max_steps} steps")
    held_out = None
    if arguments.check_steps:
        # Of another data set the training split is not trained on, but its labels vote all the same.
        checked = [find_split(name, data.train_split) for name in data.validation_dataset] or train
        held_out = find_held_out(checked, preparation, split=data.validation_split, say=say)
    average = EncoderAverage(network.stedfm, arguments.ema_decay) if arguments.ema_decay else None
    trainer = PretrainingTrainer(
        model=network,
        args=arguments,
        batches=batches,
        preparation=preparation,
        held_out=held_out,
        average=average,
        processing_class=StedFmImageProcessor(patch_size=network.config.patch_size),
    )
    # Before those of --report_to, which are told the speed that it measures.
    trainer.callback_handler.callbacks.insert(0, Watch(output.curve, say=say))
    checkpoint = trainer.newest_checkpoint(say)
    if checkpoint is not None and average is not None:
        average.load(Path(checkpoint))
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    return output.end(trainer, train, model, seconds=float(outcome.metrics.get("train_runtime", 0.0)))


def preparation_for(model: ModelArguments, arguments: PretrainArguments) -> Preparation:
    """What is done to a batch: scaled, cropped and turned to the images of the model, and masked."""
    if model.init_from is not None:
        config = StedFmConfig.from_pretrained(model.init_from)
    else:
        config = StedFmConfig(**ARCHITECTURES[model.architecture])
    size, patch = config.image_size, config.patch_size
    return Preparation(
        arguments.seed,
        image_size=size,
        patches=(size // patch) ** 2,
        augment=arguments.augment,
        flips_only=arguments.legacy,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the pretraining that the words ask for, and returns the exit status."""
    try:
        result = pretrain(*parse_arguments(argv))
    except UserError as error:
        print(f"stedfm: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    if int(os.environ.get("RANK", "0")) == 0:
        print(result.summary())
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
