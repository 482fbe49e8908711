"""Base class of all trainers: an interrupted run resumes exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import PrinterCallback, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput

from stedfm_hf.training.checkpoints import (
    checkpoint_folder,
    mark_complete,
    newest_complete,
    removed_on_failure,
    rotate_checkpoints,
)


class Checkpointable(Protocol):
    """State that is saved in every checkpoint, in addition to the model."""

    def save(self, folder: Path) -> None:
        """Write the state into the folder of a checkpoint."""

    def load(self, folder: Path) -> None:
        """Read the state from the folder of a checkpoint."""


class ResumableTrainer(Trainer, ABC):
    """Trainer that resumes from complete checkpoints only, with the batches after the checkpoint.

    Args:
        model: Network to train.
        args: Arguments of the run; `max_steps` must be set.
        batches: Endless batches of this process; `batches_from` sets the first step.
        checkpointed: States that are saved in every checkpoint, in addition to the model.
        kwargs: Other arguments of `transformers.Trainer`.
    """

    args: Any
    control: Any

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        args: Any,
        batches: IterableDataset[Any],
        checkpointed: Sequence[Checkpointable] = (),
        **kwargs: Any,
    ) -> None:
        # The library would remove old checkpoints before the new one is marked as complete.
        self.checkpoint_limit, args.save_total_limit = args.save_total_limit, None
        # The batches of a resumed run start after the checkpoint, so that none has to be skipped.
        args.ignore_data_skip = True
        super().__init__(model=model, args=args, train_dataset=batches, **kwargs)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False
        self.checkpointed = checkpointed

    @property
    @abstractmethod
    def epoch(self) -> float:
        """Number of epochs so far; the library cannot count epochs of endless batches."""

    @abstractmethod
    def batches_from(self, step: int) -> Iterator[Any]:
        """Return the batches of this process after an optimiser step.

        Args:
            step: Number of optimiser steps so far.
        """

    def before_first_step(self) -> None:
        """Prepare the network before the first step of a new run."""

    def check_checkpoint(self, folder: Path) -> None:
        """Check that a checkpoint is of the same model.

        Args:
            folder: Folder of the checkpoint.
        """

    def is_over(self, state: TrainerState) -> bool:
        """Return whether the training is complete.

        Args:
            state: State of the trainer in a checkpoint.
        """
        return state.global_step >= self.args.max_steps

    def load_last(self, checkpoint: str) -> None:
        """Load the weights of a checkpoint of a complete training.

        Args:
            checkpoint: Folder of the checkpoint.
        """

    def train_to_end(self, report: Callable[[str], None]) -> TrainOutput:
        """Train from the newest complete checkpoint of the output folder, or from the start.

        Args:
            report: Function that prints a progress line.
        """
        checkpoint = newest_complete(Path(str(self.args.output_dir)), report)
        if checkpoint is None:
            self.before_first_step()
            return self.train()
        self.check_checkpoint(checkpoint)
        for each in self.checkpointed:
            each.load(checkpoint)
        report(f"resuming after step {checkpoint.name.rpartition('-')[2]}")
        return self.train(resume_from_checkpoint=str(checkpoint))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of this process, without the sampler of the library."""
        return DataLoader(_RemainingBatches(self), batch_size=None, pin_memory=self.args.device.type == "cuda")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Set the epoch, and log as the library does."""
        self.state.epoch = self.epoch
        super().log(logs, start_time)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Train, or only load the weights if the training was complete at the checkpoint."""
        # For a run that was stopped after its last checkpoint, the library would train one step more.
        if (checkpoint := kwargs.get("resume_from_checkpoint")) is not None:
            state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
            if self.is_over(state):
                self.state = state
                self.load_last(checkpoint)
                return TrainOutput(state.global_step, 0.0, {})
        return super()._inner_training_loop(*args, **kwargs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint with its other parts, mark it as complete, and delete older ones above the limit.

        If saving fails, the incomplete folder is deleted.
        """
        output, step = Path(str(self.args.output_dir)), self.state.global_step
        folder = checkpoint_folder(output, step)
        with removed_on_failure(folder, self.args.should_save):
            super()._save_checkpoint(model, trial)
            for each in self.checkpointed if self.args.should_save else ():
                each.save(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(folder, step)
            rotate_checkpoints(output, self.checkpoint_limit)


class _RemainingBatches(IterableDataset[Any]):
    """Batches from the current step of the trainer on."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        return self.trainer.batches_from(self.trainer.state.global_step)
