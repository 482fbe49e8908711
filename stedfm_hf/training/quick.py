"""A masked autoencoder pretrained in a minute or two, for the demo (ours, not the published recipe).

The published recipe needs days: in a minute it learns the mean of the images and nothing else. What learns in that
time is many small steps at a high rate, a narrow decoder, input standardised inside the patch embedding, and a decoder
that begins at the mean pixel. Whether anything was learned is told by the loss beside that of a constant prediction.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stedfm_hf.inference.loading import choose_device, has_fast_bfloat16
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.layers_stedfm import patchify
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training.crops import RandomCrops
from stedfm_hf.training.network import own_randomness, standardised_network

WARM_UP = 0.08
CHECKS = 10

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class LossPoint:
    """A loss at a moment of the training: seconds since it began, training crops seen until then, and the loss."""

    seconds: float
    crops: int
    loss: float


@dataclass(frozen=True)
class QuickResult:
    """What a short pretraining made.

    Args:
        folder: Hub-layout folder of the trained masked autoencoder.
        untrained: Hub-layout folder of the same network before its first step: the fair control.
        train_loss: mean loss of the last steps, during the training.
        held_out_loss: loss on crops of held-out images with fixed masks, from before the first step to the end.
        constant_loss: loss of predicting the mean training pixel everywhere, on the same crops and masks.
        steps: optimiser steps.
        crops: training crops seen.
        seconds: time taken, checks on the held-out images included.
        precision: "float32" or "bfloat16" (autocast).
        device: device that trained.
        held_out: places in `images` of the held-out images.
    """

    folder: Path
    untrained: Path
    train_loss: tuple[LossPoint, ...]
    held_out_loss: tuple[LossPoint, ...]
    constant_loss: float
    steps: int
    crops: int
    seconds: float
    precision: str
    device: str
    held_out: tuple[int, ...]

    @property
    def crops_per_second(self) -> float:
        """Training crops per second."""
        return self.crops / self.seconds if self.seconds else 0.0

    @property
    def has_learned(self) -> bool:
        """Whether the held-out loss ended below that of the constant prediction."""
        return self.held_out_loss[-1].loss < self.constant_loss


def quick_config() -> StedFmConfig:
    """`stedfm-vit-64-p8` with a decoder of 128 x 1 layer x 4 heads: the wide one costs eight times the encoder."""
    architecture: dict[str, Any] = dict(ARCHITECTURES["stedfm-vit-64-p8"])
    return StedFmConfig(
        **architecture,
        decoder_hidden_size=128,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=512,
    )


@dataclass
class _Budget:
    """How much of the time, or of the steps where those are limited too, is used up."""

    seconds: float
    max_steps: int | None
    started: float | None = None

    def elapsed(self) -> float:
        return 0.0 if self.started is None else time.monotonic() - self.started

    def used(self, step: int) -> float:
        by_step = step / self.max_steps if self.max_steps else 0.0
        return min(1.0, max(self.elapsed() / self.seconds, by_step))

    def rate(self, step: int) -> float:
        """Share of the full learning rate: a linear warm-up, then half a cosine, both over the budget."""
        used = self.used(step)
        if used < WARM_UP:
            return max(used / WARM_UP, 0.02)
        return 0.5 * (1.0 + float(np.cos(np.pi * (used - WARM_UP) / (1.0 - WARM_UP))))


class _Trainer(Trainer):
    """The library's trainer with two things of its own: whole batches from the stream, and a schedule by time."""

    def __init__(self, *, budget: _Budget, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.budget = budget

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_size=None)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self.budget.rate)
        return self.lr_scheduler


@dataclass
class _Watch(TrainerCallback):
    """Starts the clock, checks the held-out crops now and then, and stops when the budget is used up."""

    budget: _Budget
    check: Callable[[StedFmForPreTraining], float]
    log: Callable[[str], None]
    batch_size: int
    constant_loss: float
    train_loss: list[LossPoint] = field(default_factory=list)
    held_out_loss: list[LossPoint] = field(default_factory=list)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.budget.started = time.monotonic()
        self._check(kwargs["model"], 0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        used = self.budget.used(state.global_step)
        if used >= len(self.held_out_loss) / CHECKS:
            self._check(kwargs["model"], state.global_step)
        control.should_training_stop = used >= 1.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            crops = state.global_step * self.batch_size
            self.train_loss.append(LossPoint(self.budget.elapsed(), crops, float(logs["loss"])))

    def _check(self, model: StedFmForPreTraining, step: int) -> None:
        point = LossPoint(self.budget.elapsed(), step * self.batch_size, self.check(model))
        self.held_out_loss.append(point)
        self.log(
            f"  {point.seconds:4.0f} s  {point.crops:6d} crops  held-out loss {point.loss:.4f}"
            f"  (constant prediction {self.constant_loss:.4f})"
        )


class _Threads(TrainerCallback):
    """Keeps trying whether one thread or all of them are faster, and goes on with what is.

    On a machine that others use too, a thread that waits for one that is not running can make two threads ten times
    slower than one, and a minute later that is over. So now and then two steps are timed with each.
    """

    def __init__(self) -> None:
        self.all = torch.get_num_threads()
        self.began = self.next_trial = 0.0
        self.pause = 10.0
        self.plan: list[int] = []
        self.took: dict[int, float] = {}

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.began = time.perf_counter()
        if not self.plan and self.all > 1 and self.began >= self.next_trial:
            self.plan, self.took = [1, 1, self.all, self.all], {}
        if self.plan:
            torch.set_num_threads(self.plan[0])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.plan:
            return
        now = time.perf_counter()
        count = self.plan.pop(0)
        self.took[count] = min(self.took.get(count, float("inf")), now - self.began)
        if not self.plan:
            torch.set_num_threads(min(self.took, key=self.took.__getitem__))
            self.next_trial = now + self.pause

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        torch.set_num_threads(self.all)


def pretrain_quickly(
    images: Sequence[np.ndarray],
    *,
    output_dir: str | Path,
    config: StedFmConfig | None = None,
    seconds: float = 120.0,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    held_out_share: float = 0.1,
    processor: StedFmImageProcessor | None = None,
    log: Callable[[str], None] = print,
) -> QuickResult:
    """Pretrains a masked autoencoder on images in memory, within a given time.

    Recipe: raw pixels as target, AdamW (0.9, 0.95) with weight decay 0.05, gradient norm clipped at 1, 8 % warm-up and
    then a cosine over the elapsed time, the eight rotations and reflections. One image in ten is held out.
    With `max_steps` in float32 on a CPU the result is a function of the arguments alone; without it, the number of
    threads follows what is fastest at the moment.

    Args:
        images: scaled images (H, W) in [0, 1] as the processor gives them, two or more.
        output_dir: gets the folders `model` and `untrained`, complete Hub layouts both.
        config: architecture; None takes :func:`quick_config`.
        seconds: time of the training.
        max_steps: ends it after that many steps at the latest.
        seed: of weights, crops and masks.
        device: "auto" or a torch device.
        precision: "auto" takes bfloat16 autocast where a short measurement finds it faster.
        batch_size: crops in a step.
        learning_rate: highest learning rate.
        held_out_share: share of the images kept for the check.
        processor: saved with the model; None: the default with the model's patch size.
        log: called with lines about the progress.

    Returns:
        Losses, speed and the folders.

    Raises:
        ValueError: fewer than two images, or a configuration that predicts normalised pixels or several channels.

    Example:
        >>> from stedfm_hf.data import simulate_image
        >>> images = [simulate_image("rings", seed=0, index=i) / 100 for i in range(20)]
        >>> result = pretrain_quickly(images, output_dir="quick", seconds=60)  # doctest: +SKIP
    """
    config = config or quick_config()
    if len(images) < 2:
        raise ValueError(f"pretraining needs two images or more, one of them to check on; got {len(images)}")
    if config.num_channels != 1:
        raise ValueError(f"a short pretraining takes images of one channel, the model asks for {config.num_channels}")
    output = Path(output_dir)
    order = np.random.default_rng(seed).permutation(len(images))
    held = sorted(int(place) for place in order[: max(1, round(held_out_share * len(images)))])
    kept = [image for place, image in enumerate(images) if place not in set(held)]
    shape: dict[str, int] = {"size": config.image_size, "patches": (config.image_size // config.patch_size) ** 2}
    stream = RandomCrops(kept, **shape, batch_size=batch_size, seed=seed)
    checks = RandomCrops([images[place] for place in held], **shape, batch_size=256, seed=seed + 1).batch(0)

    pixels = torch.cat([stream.batch(number)["pixel_values"] for number in range(8)])
    mean, std = float(pixels.mean()), float(pixels.std())
    model = standardised_network(config, mean=mean, std=std, seed=seed)
    processor = processor or StedFmImageProcessor(patch_size=config.patch_size)
    save_folder(model, processor, output / "untrained")

    constant = constant_loss(model, checks, mean)
    budget = _Budget(seconds, max_steps)
    watch = _Watch(budget, lambda network: held_out_loss(network, checks), log, batch_size, constant)
    with own_randomness(seed), tempfile.TemporaryDirectory() as scratch:
        use_bf16 = precision == "bfloat16" or (precision == "auto" and _bf16_pays(model, stream.batch(0), device))
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=max_steps or 10**9,
            learning_rate=learning_rate,
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.05,
            max_grad_norm=1.0,
            bf16=use_bf16,
            # Said explicitly where there is nothing else: bfloat16 on a CPU is refused without it.
            use_cpu=choose_device(device).type == "cpu",
            seed=seed % 2**32,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=[],
            dataloader_pin_memory=False,
        )
        trainer = _Trainer(budget=budget, model=model, args=arguments, train_dataset=stream, callbacks=[watch])
        # The library prints its logs as dictionaries; ours are lines.
        trainer.remove_callback(PrinterCallback)
        if max_steps is None and arguments.device.type == "cpu":
            trainer.add_callback(_Threads())
        trainer.train()
        took = budget.elapsed()
        steps, trained_on = trainer.state.global_step, str(arguments.device)
    model.to("cpu")
    save_folder(model, processor, output / "model")
    return QuickResult(
        folder=output / "model",
        untrained=output / "untrained",
        train_loss=tuple(watch.train_loss),
        held_out_loss=tuple(watch.held_out_loss),
        constant_loss=constant,
        steps=steps,
        crops=steps * batch_size,
        seconds=took,
        precision="bfloat16" if use_bf16 else "float32",
        device=trained_on,
        held_out=tuple(held),
    )


def constant_loss(model: StedFmForPreTraining, batch: dict[str, torch.Tensor], value: float) -> float:
    """Loss of predicting `value` in every masked pixel of a batch: what a network that learned nothing reaches.

    Args:
        model: decides the masks.
        batch: `pixel_values` (B, C, H, W) and `noise` (B, N).
        value: the constant, usually the mean training pixel.

    Returns:
        The mean squared error over the masked patches.
    """
    model.eval()
    with torch.inference_mode():
        mask = model(**batch).mask
    patches = patchify(batch["pixel_values"], model.config.patch_size)
    return float(((patches[mask] - value) ** 2).mean())


def held_out_loss(model: StedFmForPreTraining, batch: dict[str, torch.Tensor]) -> float:
    """Loss of the model on a batch with fixed masks, in float32."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        loss = float(model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss)
    model.train(training)
    return loss


def save_folder(model: StedFmForPreTraining, processor: StedFmImageProcessor, folder: Path) -> None:
    """Writes a complete Hub-layout folder, whole or not at all; an older one of that name is replaced."""
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        processor.save_pretrained(temporary)
        model.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _bf16_pays(model: StedFmForPreTraining, batch: dict[str, torch.Tensor], device: str) -> bool:
    """Whether bfloat16 autocast is there and faster: on a CPU by a measurement of a second."""
    place = choose_device(device)
    if place.type != "cpu" or not has_fast_bfloat16(place):
        return has_fast_bfloat16(place)
    best = {True: float("inf"), False: float("inf")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is compared is the arithmetic, not how busy the other cores are
    for _ in range(4):
        for enabled in best:
            began = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                loss = model(**batch).loss
            loss.backward()
            model.zero_grad(set_to_none=True)
            best[enabled] = min(best[enabled], time.perf_counter() - began)
    torch.set_num_threads(threads)
    return best[True] < best[False]
