"""What our trainings change of `transformers.Trainer`, so that a stopped one goes on exactly where it was (ours)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import PrinterCallback, Trainer

from stedfm_hf.training.checkpoints import checkpoint_folder, mark_whole, room_for, rotate


class ExactTrainer(Trainer, ABC):
    """Batches that begin behind the step of a checkpoint, and checkpoints that count only when they are whole.

    Args:
        model: what is trained.
        args: of the run; `max_steps` must be set.
        batches: those of this rank, without end; :meth:`batches_from` makes them begin somewhere.
        kwargs: of `transformers.Trainer`.
    """

    args: Any
    control: Any

    def __init__(self, *, model: torch.nn.Module, args: Any, batches: IterableDataset[Any], **kwargs: Any) -> None:
        # The library would rotate before a checkpoint is marked as whole: we do it after.
        self.checkpoints_kept, args.save_total_limit = args.save_total_limit, None
        # On resuming, the batches begin where the run was: nothing is to be read and thrown away.
        args.ignore_data_skip = True
        super().__init__(model=model, args=args, train_dataset=batches, **kwargs)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False

    @property
    @abstractmethod
    def epoch(self) -> float:
        """Epochs of the data seen so far, which the library cannot know of batches without end."""

    @abstractmethod
    def batches_from(self, step: int) -> Iterator[Any]:
        """The batches of this rank behind an optimiser step."""

    def save_beside(self, folder: Path) -> None:
        """Saves what else a checkpoint needs; the first process calls it."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches as they are: they are those of this rank already."""
        return DataLoader(_Resumed(self), batch_size=None, pin_memory=self.args.device.type == "cuda")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Says the epoch of the data."""
        self.state.epoch = self.epoch
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        output, step = Path(str(self.args.output_dir)), self.state.global_step
        folder = checkpoint_folder(output, step)
        with room_for(folder, self.args.should_save):
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                self.save_beside(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_whole(folder, step)
            rotate(output, self.checkpoints_kept)


class _Resumed(IterableDataset[Any]):
    """The batches behind the step that the trainer is at when it begins to iterate."""

    def __init__(self, trainer: ExactTrainer) -> None:
        self.trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        return self.trainer.batches_from(self.trainer.state.global_step)
