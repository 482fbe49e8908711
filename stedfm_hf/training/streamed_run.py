"""Run of a training on streamed crops in its output folder, from the first step to the published result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from stedfm_hf.data.repository.files import SplitFiles, find_split
from stedfm_hf.data.streaming.stream import CropStream
from stedfm_hf.hub.publish import publish
from stedfm_hf.runs import UserError
from stedfm_hf.runs.output import open_output
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.recipes import write_recipe
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.training.arguments import compose_arguments
from stedfm_hf.training.batches import EndlessBatches, MixedSplit, divide_batch
from stedfm_hf.training.card import name_of
from stedfm_hf.training.checkpoints import checkpoint_folder, checkpoint_steps, newest_complete
from stedfm_hf.training.settings import StreamedSettings

RECIPE_FILE = "recipe.yaml"
Settings = TypeVar("Settings", bound=StreamedSettings)


@dataclass(frozen=True)
class PretrainResult(OutputResult):
    """Result of a pretraining: the folder of the model.

    Attributes:
        output: Model folder in the layout of the Hub.
        manifest: Settings, versions and data.
        steps: Number of optimiser steps.
        samples: Number of crops seen, of all processes together.
    """

    steps: int
    samples: int

    def summary(self) -> str:
        """Return one line for the terminal."""
        return f"{self.output}: {self.steps:,} steps, {self.samples:,} crops seen"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return super().to_json() | {"steps": self.steps, "samples": self.samples}


class StreamedRun(Generic[Settings]):
    """Run of a training on streamed crops.

    Args:
        settings: Settings of the training.

    Attributes:
        arguments: Arguments of the trainer.
        splits: Training splits, one for each data set.
        writes: Whether this process writes and reports: the first one.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.arguments = settings, compose_arguments(settings)
        self.writes = self.arguments.process_index == 0
        self.splits = [find_split(name, settings.train_split) for name in settings.dataset]

    def report(self, line: str) -> None:
        """Print a progress line in the first process."""
        if self.writes:
            print_note(line)

    def batches(self, columns: Sequence[str] = ()) -> EndlessBatches:
        """Return the batches of this process, which mix the data sets by the weights of the settings.

        Args:
            columns: Names of columns of the data sets that the batches have in addition to the pixels.
        """
        settings, arguments = self.settings, self.arguments
        weights = settings.dataset_weights or [1.0] * len(self.splits)
        sizes = divide_batch(arguments.per_device_train_batch_size, weights)
        return EndlessBatches(
            [MixedSplit(files, size) for files, size in zip(self.splits, sizes, strict=True)],
            seed=arguments.seed,
            accumulation=arguments.gradient_accumulation_steps,
            rank=arguments.process_index,
            world_size=arguments.world_size,
            open_shards=settings.open_shards,
            threads=settings.workers,
            columns=columns,
        )

    def check_sizes(self, image_size: int) -> None:
        """Check that crops are at least as large as the images of the model.

        Args:
            image_size: Image size of the model in pixels.

        Raises:
            UserError: If crops are too small.
        """
        for each in self.splits:
            height, width = crop_shape(each)
            if min(height, width) < image_size:
                raise UserError(
                    f"{each.repo}: crops of {height} x {width} are smaller than the {image_size} x {image_size} of "
                    f"the model; build the data set with --crop-size {image_size} or more"
                )

    def write_folder(
        self,
        batches: EndlessBatches,
        train: Callable[[], int],
        *,
        results: Sequence[str],
        temporary: Sequence[str] = (),
        resolved: Mapping[str, Any] | None = None,
        model: str | None = None,
        weights_sha256: str | None = None,
    ) -> PretrainResult:
        """Train unless the output folder is finished, and publish the result if the settings say so.

        Args:
            batches: Training batches, whose number sets the number of steps if the settings limit only the epochs.
            train: Function that trains, writes the result, and returns the number of steps of the whole run.
            results: Names of the results in the folder; a folder without them is not finished.
            temporary: Names of temporary files, in addition to the checkpoints.
            resolved: Settings that affect the result and are known only now.
            model: Name of the model that the training depends on.
            weights_sha256: SHA-256 of its weights.

        Raises:
            UserError: If the folder holds another run, or the result cannot be published.
        """
        settings, arguments = self.settings, self.arguments
        if settings.step_limit is None:
            steps_per_epoch = batches.batches_per_epoch[0] // arguments.gradient_accumulation_steps
            arguments.max_steps = max(1, round(settings.num_train_epochs * steps_per_epoch))
        checkpoints = [checkpoint_folder(settings.folder, step).name for step in checkpoint_steps(settings.folder)]
        data = [_identity_of(files) for files in self.splits]
        with open_output(
            settings.output,
            settings.command,
            settings,
            results=results,
            temporary=[*temporary, *checkpoints],
            resolved={"max_steps": arguments.max_steps, **(resolved or {}), "data": data},
            options={"processes": arguments.world_size, "batch": settings.describe_batch()},
            model=model,
            weights_sha256=weights_sha256,
            seed=arguments.seed,
            writes=self.writes,
        ) as output:
            if output.finished:
                output.report_finished()
            else:
                if self.writes:
                    names = ", ".join(name_of(files.repo) for files in self.splits)
                    write_recipe(output.path / RECIPE_FILE, settings.recipe(), note=f"trained on {names}")
                self._report_start()
                output.manifest.options["steps"] = train()
        if settings.push_to_hub and self.writes:
            try:
                publish(output.path, str(settings.hub_model_id), public=not settings.hub_private_repo)
            except UserError as error:
                raise UserError(f"{output.path}: is finished, but was not published. {error}") from error
        steps = int(output.manifest.options["steps"])
        return PretrainResult(output.path, output.manifest, steps, steps * settings.effective_batch_size)

    def _report_start(self) -> None:
        """Report batch, learning rate and length, and that checkpoints are incomplete."""
        settings, folder = self.settings, self.settings.folder
        if checkpoint_steps(folder) and newest_complete(folder, lambda line: None) is None:
            self.report(f"{folder}: no complete checkpoint; starting from the first step")
        rate = f"learning rate {settings.peak_learning_rate:.3g}"
        steps = f"{self.arguments.max_steps} steps"
        length = f"{settings.max_seconds:g} seconds" if settings.max_seconds else steps
        self.report(f"{settings.describe_batch()}, {rate}, {length}")


def crop_shape(files: SplitFiles) -> tuple[int, int]:
    """Return height and width of the crops of a split, in pixels.

    Args:
        files: Files of the split.
    """
    stream = CropStream(files, batch_size=1, seed=0, epoch=0, rank=0, world_size=1, drop_last=True, workers=0)
    height, width = next(iter(stream))["pixels"].shape[2:]
    return height, width


def _identity_of(files: SplitFiles) -> dict[str, Any]:
    """Return values that identify a data set independently of its location."""
    shards = "/".join(f"{Path(shard.file).name}:{shard.rows}" for shard in files.shards)
    return {
        "name": Path(files.repo).name,
        "split": files.split,
        "crops": files.rows,
        "shards": hashlib.sha256(shards.encode()).hexdigest()[:16],
    }
