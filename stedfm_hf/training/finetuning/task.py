"""Base class of the fine-tuning tasks: reading, training, evaluation, metrics and card.

A task trains one run for each seed, in one process or in several under a launcher. The same command resumes an
interrupted run from its newest complete checkpoint, with the same metrics at the end.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic

from transformers import TrainingArguments

from stedfm_hf.inference.loading import weights_sha256
from stedfm_hf.labels.splits import Images, Splits, limitations_of
from stedfm_hf.labels.training_sources import read_training_sources, write_training_sources
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.reports.figures import save_figure
from stedfm_hf.runs import read_json, some_of, write_json
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.recipes import write_recipe
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.training.arguments import compose_arguments
from stedfm_hf.training.checkpoints import remove_checkpoints
from stedfm_hf.training.curve import CURVE_FILE, CurveFile, FinetuneRow
from stedfm_hf.training.figures import CURVE, FIGURES, plot_finetuning_curve
from stedfm_hf.training.finetuning.best_weights import best_evaluation, choose_metric, evaluations_of
from stedfm_hf.training.finetuning.card import write_card
from stedfm_hf.training.finetuning.data import CachedItems, Item, LoadedSplit, load_images
from stedfm_hf.training.finetuning.network import merge_adapters, name_of_model, network_config, source_of
from stedfm_hf.training.finetuning.settings import NEW_ENCODER
from stedfm_hf.training.finetuning.summary import METRICS_FILE, describe, is_finished, run_folder, write_summary
from stedfm_hf.training.finetuning.trainer import FinetuneTrainer, Settings
from stedfm_hf.weights.packaged import PACKAGED

RECIPE_FILE = "recipe.yaml"
Report = Callable[[str], None]


@dataclass(frozen=True)
class FinetuneResult(OutputResult):
    """Result of a fine-tuning: the folder of the best model, with a folder for each seed.

    Attributes:
        output: Complete Hub-layout folder.
        manifest: Settings, versions, and the images that could not be read.
        metrics: Content of `metrics.json`; empty in all processes but the first.
        headline: Metrics that the summary shows, where they have a value.
    """

    metrics: dict[str, Any]
    headline: tuple[str, ...]

    def summary(self) -> str:
        """Return one line for the terminal, and one for each limitation or recommendation."""
        return describe(self.metrics, self.output, self.headline) if self.metrics else ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return super().to_json() | {"metrics": self.metrics}


@dataclass(frozen=True)
class Run:
    """The run of one seed.

    Attributes:
        folder: Folder of the run.
        seed: Random seed of the run.
    """

    folder: Path
    seed: int

    @property
    def curve(self) -> CurveFile[FinetuneRow]:
        """Training curve of the run."""
        return CurveFile(self.folder / CURVE_FILE, FinetuneRow)


class Task(ABC, Generic[Settings, Images, Item]):
    """Fine-tuning of a network, from the images to the model card.

    Args:
        settings: Settings of the fine-tuning.

    Attributes:
        arguments: Arguments of the trainer, without the seed, folder and number of steps of a run.
        writes: Whether this process writes files; true in the first process only.
        report: Function that prints a progress line, in the first process only.
        config: Configuration of the network, without the classes.
        splits: Images of train, validation and test.
        metric: Validation metric that selects the best model.

    Raises:
        UserError: Input that cannot be trained on.
    """

    headline: ClassVar[tuple[str, ...]]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.arguments = compose_arguments(settings)
        self.writes = self.arguments.process_index == 0
        self.report: Report = print_note if self.writes else lambda line: None
        self.config = network_config(settings)
        self.splits: Splits[Images] = self.read()
        self.metric = choose_metric(self.metrics(), settings.metric_for_best_model)

    @abstractmethod
    def read(self) -> Splits[Images]:
        """Read the images and split them."""

    @abstractmethod
    def metrics(self) -> Sequence[str]:
        """Return the validation metrics that can select the best model, the default first."""

    def notes(self) -> Iterable[str]:
        """Return notes and warnings about the images, to be printed before the training."""
        return ()

    @abstractmethod
    def sample(self, seed: int) -> Images:
        """Return the training images of the run of a seed: all, or a random sample.

        Args:
            seed: Random seed of the run.
        """

    @abstractmethod
    def cache(self, data: Images) -> CachedItems[Item]:
        """Return the items of the images for training and evaluation, each read once.

        Args:
            data: Images to read.
        """

    @abstractmethod
    def channels_of(self, item: Item) -> int:
        """Return the number of channels of an item.

        Args:
            item: Item of an image, as returned by `cache`.
        """

    @abstractmethod
    def make_trainer(
        self, run: Run, sampled: LoadedSplit[Images, Item], validation: LoadedSplit[Images, Item]
    ) -> FinetuneTrainer[Settings, Any]:
        """Build the network of a run and its trainer.

        Args:
            run: Run to train.
            sampled: Training images.
            validation: Validation images.
        """

    @abstractmethod
    def evaluate(
        self,
        run: Run,
        trainer: Any,
        sampled: LoadedSplit[Images, Item],
        held_out: Mapping[str, LoadedSplit[Images, Item]],
    ) -> dict[str, Any]:
        """Evaluate the trained network, and write predictions and figures in the first process.

        Args:
            run: Run that was trained.
            trainer: Trainer with the best weights; every process must make this call.
            sampled: Training images.
            held_out: Images of validation and, if it exists, test, by split.

        Returns:
            Metrics by split, and counts of the training images, for `metrics.json`.
        """

    @abstractmethod
    def card(self, best: Mapping[str, Any]) -> dict[str, Any]:
        """Return the facts of the model card that depend on the task.

        Args:
            best: Content of `metrics.json` of the best run.

        Returns:
            Values for `FinetunedCardFacts`, by name.
        """

    def run(self) -> FinetuneResult:
        """Train every seed that is not finished, and write the best model, the metrics and the model card.

        Raises:
            UserError: The images cannot be used, or the output folder holds something else.
        """
        settings, folder = self.settings, self.settings.folder
        seeds = [f"{run_folder(Path(), seed)}/{METRICS_FILE}" for seed in settings.seeds]
        new = settings.mode in NEW_ENCODER
        with open_output(
            folder,
            settings.command,
            settings,
            results=[METRICS_FILE, *seeds],
            resolved={"data": {name: images.fingerprint for name, images in self.splits.named().items()}},
            options={"processes": self.arguments.world_size, "batch": settings.describe_batch()},
            model=name_of_model(settings.model),
            weights_sha256=None if new else weights_sha256(source_of(settings)),
            writes=self.writes,
        ) as output:
            if output.finished and read_json(folder / METRICS_FILE)["seeds"] == settings.seeds:
                output.report_finished()
            else:
                output.reopen()
                self._run_seeds(output)
        metrics = dict(read_json(folder / METRICS_FILE)) if self.writes else {}
        return FinetuneResult(output.path, output.manifest, metrics, self.headline)

    def run_arguments(self, run: Run, steps: int) -> TrainingArguments:
        """Return the arguments of the trainer of a run.

        Args:
            run: Run to train.
            steps: Number of optimiser steps.
        """
        args = copy.copy(self.arguments)
        args.seed, args.output_dir, args.max_steps, args.save_total_limit = run.seed, str(run.folder), steps, 1
        args.eval_strategy = args.save_strategy = args.logging_strategy = "steps"
        args.eval_steps = args.logging_steps = -(-steps // self.settings.num_evaluations)
        args.save_steps = args.eval_steps * self.settings.evaluations_per_checkpoint
        return args

    def processor(self) -> StedFmImageProcessor:
        """Return the image processor that is saved with the model."""
        return StedFmImageProcessor(patch_size=self.config.patch_size)

    def load(self, data: Images, output: Output) -> LoadedSplit[Images, Item]:
        """Read all images once; report and record the unreadable ones.

        Args:
            data: Images of a split.
            output: Output folder, whose manifest lists the unreadable images.
        """
        loaded = load_images(data, self.cache, channels=self.config.num_channels, channels_of=self.channels_of)
        recorded = output.manifest.items
        for line in describe_failed({image: why for image, why in loaded.failed.items() if image not in recorded}):
            self.report(line)
        for image, reason in loaded.failed.items():
            output.manifest.failed(image, reason)
        return loaded

    def _run_seeds(self, output: Output) -> None:
        """Train and evaluate a run for each seed that is not finished, then write the summary and the model card.

        The first process also writes the recipe and the training sources of each run, and deletes the checkpoints of
        finished runs.
        """
        settings, splits, folder = self.settings, self.splits, output.path
        name, is_new = name_of_model(settings.model), settings.mode in NEW_ENCODER
        if self.writes:
            write_recipe(folder / RECIPE_FILE, settings.recipe(), note=f"trained on {splits.train.name} from {name}")
        if not is_new and settings.model in PACKAGED:
            self.report(f"{name}: {PACKAGED[settings.model]}")
        for note in self.notes():
            self.report(note)
        held_out = {name: self.load(data, output) for name, data in splits.held_out().items()}
        self.report(f"{splits.train.name}: {splits.counts()}. {splits.description}")
        if "test" not in held_out:
            self.report(
                f"warning: {splits.train.name}: there is no test image; the metrics of the validation images, which "
                "also select the best model, are too optimistic"
            )
        learning_rate = f"learning rate {settings.peak_learning_rate:.3g}"
        self.report(f"{settings.describe_batch()}, {learning_rate}, mode {settings.mode}")
        encoder_sources = None if is_new else read_training_sources(settings.model)
        for seed in settings.seeds:
            run = Run(run_folder(folder, seed), seed)
            if is_finished(folder, seed):
                self.report(f"seed {seed}: already finished")
                if self.writes:
                    remove_checkpoints(run.folder)  # the process may have ended before it removed them
                continue
            if self.writes:
                write_training_sources(run.folder, (splits.train, splits.validation), before=encoder_sources)
            self._run_seed(run, self.load(self.sample(seed), output), held_out)
        if self.writes:
            limitations = limitations_of((held_out.get("test") or held_out["validation"]).data)
            failed = output.manifest.failures()
            summary = write_summary(
                folder, settings.seeds, split_description=splits.description, limitations=limitations, failed=failed
            )
            write_card(self, summary, held_out)

    def _run_seed(
        self, run: Run, sampled: LoadedSplit[Images, Item], held_out: Mapping[str, LoadedSplit[Images, Item]]
    ) -> None:
        """Train and evaluate a run, and write its model, processor, curve figure and metrics (first process only).

        `metrics.json` is written last and marks the run as finished; the checkpoints are deleted afterwards.
        """
        trainer = self.make_trainer(run, sampled, held_out["validation"])
        trainer.train_on(run.curve, self.report)
        merge_adapters(trainer.network)
        scores = self.evaluate(run, trainer, sampled, held_out)
        if self.writes:
            trainer.network.requires_grad_(True)
            self.processor().save_pretrained(run.folder)
            trainer.network.save_pretrained(run.folder)
            history, metric = trainer.state.log_history, self.metric
            best, evaluations = best_evaluation(history, metric), evaluations_of(history, metric)
            best_step = None if best is None else evaluations[best].step
            figure = plot_finetuning_curve(run.curve.rows(), metric, best_step=best_step)
            save_figure(figure, run.folder / FIGURES, CURVE)
            metrics = {
                "seed": run.seed,
                "metric_for_best_model": metric,
                "best_step": best_step,
                "best_evaluation": None if best is None else best + 1,
                "evaluations": len(evaluations),
                "steps": trainer.state.global_step,
                "images_seen": trainer.state.global_step * self.settings.effective_batch_size,
                **scores,
            }
            write_json(run.folder / METRICS_FILE, metrics)
            remove_checkpoints(run.folder)
        trainer.accelerator.wait_for_everyone()


def describe_failed(failed: Mapping[str, str]) -> list[str]:
    """Return a line for each reason why images are skipped.

    Args:
        failed: Reason by image id.

    Example:
        >>> describe_failed({"a.tif": "not a TIFF file"})
        ['a.tif: skipped (not a TIFF file)']
    """
    images: dict[str, list[str]] = {}
    for image, reason in failed.items():
        images.setdefault(reason, []).append(image)
    return [f"{some_of(names)}: skipped ({reason})" for reason, names in images.items()]
