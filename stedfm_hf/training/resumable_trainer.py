"""Changes of `transformers.Trainer` that all trainings share: a run that was interrupted resumes exactly."""

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
    rotate,
)


class Checkpointable(Protocol):
    """Something that every checkpoint keeps next to the model."""

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""

    def load(self, folder: Path) -> None:
        """Read it from a checkpoint."""


class ResumableTrainer(Trainer, ABC):
    """Batches that begin after the step of a checkpoint, and checkpoints that count only when they are complete.

    Args:
        model: Network.
        args: Arguments of the run; `max_steps` must be set.
        batches: Batches of this process, without end; :meth:`batches_from` makes them begin somewhere.
        checkpointed: What every checkpoint keeps next to the model.
        kwargs: Arguments of `transformers.Trainer`.
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
        # The library would rotate before a checkpoint is marked as complete: we do it after.
        self.checkpoint_limit, args.save_total_limit = args.save_total_limit, None
        # A resumed run gets batches that begin where it was: none is to be read and thrown away.
        args.ignore_data_skip = True
        super().__init__(model=model, args=args, train_dataset=batches, **kwargs)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False
        self.checkpointed = checkpointed

    @property
    @abstractmethod
    def epoch(self) -> float:
        """Epochs of the data seen so far, which the library cannot know of batches without end."""

    @abstractmethod
    def batches_from(self, step: int) -> Iterator[Any]:
        """Return the batches of this process after an optimiser step."""

    def before_first_step(self) -> None:
        """Prepare the network before it is trained at all."""

    def check_checkpoint(self, folder: Path) -> None:
        """Refuse a checkpoint of another model."""

    def is_over(self, state: TrainerState) -> bool:
        """Whether nothing is left to train after a checkpoint."""
        return state.global_step >= self.args.max_steps

    def load_last(self, checkpoint: str) -> None:
        """Load the weights of a checkpoint after which nothing is left to train."""

    def train_to_end(self, report: Callable[[str], None]) -> TrainOutput:
        """Train from the newest complete checkpoint of the output folder."""
        checkpoint = newest_complete(Path(str(self.args.output_dir)), report)
        if checkpoint is None:
            self.before_first_step()
            return self.train()
        self.check_checkpoint(checkpoint)
        for each in self.checkpointed:
            each.load(checkpoint)
        report(f"resumes after step {checkpoint.name.rpartition('-')[2]}")
        return self.train(resume_from_checkpoint=str(checkpoint))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches as they are: they are those of this process already."""
        return DataLoader(_RemainingBatches(self), batch_size=None, pin_memory=self.args.device.type == "cuda")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the epoch of the data."""
        self.state.epoch = self.epoch
        super().log(logs, start_time)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        # A run that was stopped between its last checkpoint and its end: the library would take one step more.
        if (checkpoint := kwargs.get("resume_from_checkpoint")) is not None:
            state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
            if self.is_over(state):
                self.state = state
                self.load_last(checkpoint)
                return TrainOutput(state.global_step, 0.0, {})
        return super()._inner_training_loop(*args, **kwargs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        output, step = Path(str(self.args.output_dir)), self.state.global_step
        folder = checkpoint_folder(output, step)
        with removed_on_failure(folder, self.args.should_save):
            super()._save_checkpoint(model, trial)
            for each in self.checkpointed if self.args.should_save else ():
                each.save(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(folder, step)
            rotate(output, self.checkpoint_limit)


class _RemainingBatches(IterableDataset[Any]):
    """The batches after the step that the trainer is at when it begins to iterate."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        return self.trainer.batches_from(self.trainer.state.global_step)
