"""The library's trainer for classifiers: checks on whole images, the best weights kept (ours)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput

from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.training.checkpoints import newest_whole
from stedfm_hf.training.classification.arguments import ClassificationArguments
from stedfm_hf.training.classification.augmentation import augment
from stedfm_hf.training.classification.best import Best
from stedfm_hf.training.classification.feeding import Feed
from stedfm_hf.training.classification.network import learning_rate_scale, set_head
from stedfm_hf.training.classification.objective import Objective
from stedfm_hf.training.classification.prediction import logits_of, vectors_of
from stedfm_hf.training.classification.scoring import best_check, checks_of, is_past_patience, score
from stedfm_hf.training.exact import ExactTrainer

NORMALISED_BY = 256
"""Training images, at most, whose vectors the head is normalised by at a check."""


@dataclass(frozen=True, eq=False)
class Checked:
    """Images that are looked at as a whole.

    Args:
        images: (C, H, W) each.
        labels: of each.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class ClassificationTrainer(ExactTrainer):
    """Trains a `StedFmForImageClassification`.

    The head begins with a batch normalisation. With a frozen encoder it is that of the training vectors from the first
    step on, so that the probe is a linear layer on standardised vectors. Else a step takes the statistics of its
    batch, and a check, like the saved model, those of the training images as the weights are then: no moving average,
    which would depend on how steps are shared and lag behind few of them.

    Args:
        model: the network.
        args: of the run; `max_steps` must be set.
        feed: its batches.
        objective: its loss.
        training: images the head is normalised by.
        validation: images of the checks.
        figure: what the best weights are chosen by.
        frozen: whether the encoder is.
        kwargs: of `transformers.Trainer`.
    """

    args: ClassificationArguments
    optimizer: Any

    def __init__(
        self,
        *,
        model: StedFmForImageClassification,
        args: ClassificationArguments,
        feed: Feed,
        objective: Objective,
        training: Sequence[np.ndarray],
        validation: Checked,
        figure: str,
        frozen: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, args=args, batches=feed, eval_dataset=validation, **kwargs)
        self.feed, self.objective, self.training, self.validation = feed, objective, training, validation
        self.figure, self.frozen, self.best = figure, frozen, Best(model)

    @property
    def network(self) -> StedFmForImageClassification:
        """The network without what wraps it."""
        return self.best.network

    # ------------------------------------------------------------------------------------- the step

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Augments on the device, and takes the loss of the objective."""
        self.network.batch_norm.train(not self.frozen)
        images = inputs["pixel_values"]
        if self.args.augment:
            images = augment(images, inputs["keys"])
        output = model(pixel_values=images)
        loss = self.objective.loss(output.logits, inputs["labels"])
        return (loss, output) if return_outputs else loss

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Decays matrices only, and gives early blocks lower rates where `layer_decay` is below 1."""
        if self.optimizer is None:
            layers, groups = self.network.config.num_hidden_layers, dict[tuple[float, float], list[Any]]()
            for name, parameter in self.network.named_parameters():
                if parameter.requires_grad:
                    scale = learning_rate_scale(name, layers, self.args.layer_decay)
                    decay = self.args.weight_decay if parameter.ndim == 2 else 0.0
                    groups.setdefault((scale, decay), []).append(parameter)
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.network)
            rate = settings["lr"]
            parts = [
                {"params": parameters, "weight_decay": decay, "lr": scale * rate}
                for (scale, decay), parameters in sorted(groups.items(), key=lambda each: each[0], reverse=True)
            ]
            self.optimizer = kind(parts, **settings)
        return self.optimizer

    @property
    def epoch(self) -> float:
        """Epochs of the training images of the run seen so far."""
        return self.state.global_step * self.args.effective_batch / len(self.feed.samples.images)

    # ------------------------------------------------------------------------------------- checks

    def normalise_head(self) -> None:
        """Normalises the head by the vectors of training images under the weights of now."""
        count = min(len(self.training), NORMALISED_BY)
        chosen = np.random.default_rng(0).permutation(len(self.training))[:count]
        vectors = self._vectors([self.training[number] for number in chosen]).astype(np.float64)
        set_head(self.network, mean=vectors.mean(axis=0), variance=vectors.var(axis=0))

    def _vectors(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return vectors_of(
            self.network, images, batch_size=self.args.max_per_device_batch, shared=self.args.world_size > 1
        )

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """What the network gives of whole images, (n, L); every process must come here."""
        return logits_of(self.network, self._vectors(images))

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Looks at the validation images, and keeps the weights if they are the best so far."""
        if not self.frozen:
            self.normalise_head()
        logits = self.logits(self.validation.images)
        labels = self.validation.labels
        loss = self.objective.loss(torch.from_numpy(logits), self.objective.targets(labels), weighted=False)
        found: dict[str, Any] = {"loss": float(loss)}
        if np.isfinite(logits).all():
            found |= score(self.objective.in_units(logits), labels, self.objective.task)
        metrics = {f"eval_{name}": float(value) for name, value in found.items() if isinstance(value, float)}
        # What is not defined, as R2 of numbers that are all the same, is never the best.
        metrics.setdefault(f"eval_{self.figure}", -math.inf)
        self.log(metrics)
        history = self.state.log_history
        if best_check(history, self.figure) == len(checks_of(history, self.figure)) - 1:
            self.best.keep()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ------------------------------------------------------------------------------------- checkpoints

    def train_on(self, say: Callable[[str], None]) -> TrainOutput:
        """Trains from the newest whole checkpoint on, and ends with the best weights in the network."""
        checkpoint = newest_whole(Path(str(self.args.output_dir)), say)
        if checkpoint is not None:
            self.best.load(checkpoint)
        elif self.frozen:
            self.normalise_head()
        outcome = self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        self.best.restore()
        return outcome

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        # A run that was stopped between its last checkpoint and its end: the library would take one step more.
        checkpoint = kwargs.get("resume_from_checkpoint")
        if checkpoint is not None:
            state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
            ended = is_past_patience(state.log_history, self.figure, self.args.early_stopping_patience)
            if ended or state.global_step >= self.args.max_steps:
                self.state = state
                return TrainOutput(state.global_step, 0.0, {})
        return super()._inner_training_loop(*args, **kwargs)

    def batches_from(self, step: int) -> Iterator[Any]:
        """The batches of this rank behind an optimiser step."""
        self.feed.step = step
        return iter(self.feed)

    def save_beside(self, folder: Path) -> None:
        """Saves the best weights so far."""
        self.best.save(folder)
