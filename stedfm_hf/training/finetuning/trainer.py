"""The library's trainer for fine-tunings: checks on whole images, the best weights kept (ours)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput

from stedfm_hf.training.checkpoints import newest_whole
from stedfm_hf.training.curve import RowsFile
from stedfm_hf.training.exact import ExactTrainer
from stedfm_hf.training.finetuning.arguments import FinetuningArguments
from stedfm_hf.training.finetuning.best import Best
from stedfm_hf.training.finetuning.checks import best_check, checks_of, is_past_patience
from stedfm_hf.training.finetuning.feeding import Feed
from stedfm_hf.training.finetuning.network import Network, learning_rate_scale
from stedfm_hf.training.finetuning.watching import CheckRow, CheckWatch


class FinetuningTrainer(ExactTrainer, Generic[Network]):
    """Trains a network, looks at validation images now and then, and ends with the weights that were best there.

    Args:
        model: the network.
        args: of the run; `max_steps` must be set.
        feed: its batches.
        figure: what the best weights are chosen by.
        kwargs: of `transformers.Trainer`.
    """

    args: FinetuningArguments
    optimizer: Any

    def __init__(self, *, model: Network, args: FinetuningArguments, feed: Feed, figure: str, **kwargs: Any) -> None:
        super().__init__(model=model, args=args, batches=feed, **kwargs)
        self.network, self.feed, self.figure, self.best = model, feed, figure, Best(model)

    @abstractmethod
    def check(self) -> Mapping[str, Any]:
        """Figures of the validation images under the weights of now, `loss` among them; every process must come."""

    def before_first_step(self) -> None:
        """What is done to a network before it is trained at all."""

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Decays matrices and kernels only, and gives early blocks lower rates where `layer_decay` is below 1."""
        if self.optimizer is None:
            layers, groups = self.network.config.num_hidden_layers, dict[tuple[float, float], list[Any]]()
            for name, parameter in self.network.named_parameters():
                if parameter.requires_grad:
                    scale = learning_rate_scale(name, layers, self.args.layer_decay or 1.0)
                    decay = self.args.weight_decay if parameter.ndim in (2, 4) else 0.0  # tokens have three
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
        return self.state.global_step * self.args.effective_batch / len(self.feed.samples.items)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Looks at the validation images, and keeps the weights if they are the best so far."""
        found = self.check()
        metrics = {f"eval_{name}": float(value) for name, value in found.items() if isinstance(value, float)}
        # What is not defined, as R2 of numbers that are all the same, is never the best.
        metrics.setdefault(f"eval_{self.figure}", -math.inf)
        self.log(metrics)
        history = self.state.log_history
        if best_check(history, self.figure) == len(checks_of(history, self.figure)) - 1:
            self.best.keep()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def train_on(self, curve: RowsFile[CheckRow], say: Callable[[str], None]) -> TrainOutput:
        """Trains from the newest whole checkpoint on, and ends with the best weights in the network.

        Args:
            curve: gets a row for every log and check.
            say: called with lines for people.
        """
        watch = CheckWatch(curve, figure=self.figure, patience=self.args.early_stopping_patience, say=say)
        # Behind the one that says what is due in a step, so that it also watches the step it is stopped in.
        self.callback_handler.callbacks.insert(1, watch)
        folder = Path(str(self.args.output_dir))
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
        checkpoint = newest_whole(folder, say)
        if checkpoint is not None:
            self.best.load(checkpoint)
            say(f"goes on behind step {checkpoint.name.rpartition('-')[2]}")
        else:
            if curve.rows():
                say("there is no checkpoint yet: it begins again")
            self.before_first_step()
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
