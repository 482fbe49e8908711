"""A fine-tuning as a task: what it reads, trains, measures and tells, and the run that all tasks share.

One run for each seed, in one process or shared by many under a launcher. A run that was killed is resumed by the same
command from its newest complete checkpoint, to the same metrics.
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
from stedfm_hf.training.curve import CURVE_FILE, FinetuneRow, RowsFile
from stedfm_hf.training.figures import CURVE, FIGURES, plot_finetuning_curve
from stedfm_hf.training.finetuning.best import best_evaluation, choose_metric, evaluations_of
from stedfm_hf.training.finetuning.card import write_card
from stedfm_hf.training.finetuning.data import Item, Loaded, Remembered, load_images
from stedfm_hf.training.finetuning.network import merge_adapters, name_of_model, network_config, source_of
from stedfm_hf.training.finetuning.settings import NEW_ENCODER
from stedfm_hf.training.finetuning.summary import METRICS_FILE, describe, is_finished, run_folder, write_summary
from stedfm_hf.training.finetuning.trainer import FinetuneTrainer, Settings
from stedfm_hf.weights.packaged import PACKAGED

RECIPE_FILE = "recipe.yaml"
Say = Callable[[str], None]


@dataclass(frozen=True)
class FinetuneResult(OutputResult):
    """Result of a fine-tuning: the folder of the best model, with a folder for each seed.

    Attributes:
        output: Complete Hub-layout folder.
        manifest: Settings, versions, and the images that could not be read.
        metrics: Content of its `metrics.json`; empty in all processes but the first.
        headline: Metrics that the summary shows, where there are any.
    """

    metrics: dict[str, Any]
    headline: tuple[str, ...]

    def summary(self) -> str:
        """Return one line for the terminal, and one for each limitation."""
        return describe(self.metrics, self.output, self.headline) if self.metrics else ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return super().to_json() | {"metrics": self.metrics}


@dataclass(frozen=True)
class Run:
    """The run of one seed.

    Attributes:
        folder: Folder of the run.
        seed: Seed of the run.
    """

    folder: Path
    seed: int

    @property
    def curve(self) -> RowsFile[FinetuneRow]:
        """Curve of the run."""
        return RowsFile(self.folder / CURVE_FILE, FinetuneRow)


class Task(ABC, Generic[Settings, Images, Item]):
    """A fine-tuning, from its images to its card.

    Attributes:
        arguments: Arguments of the trainer, those of a run without its seed, folder and steps.
        writes: Whether this process writes: the first one.
        say: Prints progress lines in the first process.
        config: Configuration of the network, before it knows the classes.
        splits: Images to train, select and test on.
        metric: Validation metric that the best model is chosen by.

    Raises:
        UserError: Input that cannot be trained on.
    """

    headline: ClassVar[tuple[str, ...]]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.arguments = compose_arguments(settings)
        self.writes = self.arguments.process_index == 0
        self.say: Say = print_note if self.writes else lambda line: None
        self.config = network_config(settings)
        self.splits: Splits[Images] = self.read()
        self.metric = choose_metric(self.metrics(), settings.metric_for_best_model)

    @abstractmethod
    def read(self) -> Splits[Images]:
        """Read the images and split them."""

    @abstractmethod
    def metrics(self) -> Sequence[str]:
        """Return the validation metrics that the best model can be chosen by, the usual one first."""

    def notes(self) -> Iterable[str]:
        """Return what a user should know of the images before they are trained on."""
        return ()

    @abstractmethod
    def sample(self, seed: int) -> Images:
        """Return the training images that the run of a seed may see."""

    @abstractmethod
    def remember(self, data: Images) -> Remembered[Item]:
        """Return what is fed or scored of each image, read once."""

    @abstractmethod
    def channels_of(self, item: Item) -> int:
        """Return the number of channels of an item."""

    @abstractmethod
    def make_trainer(
        self, run: Run, sampled: Loaded[Images, Item], validation: Loaded[Images, Item]
    ) -> FinetuneTrainer[Settings, Any]:
        """Build the network of a run and its trainer."""

    @abstractmethod
    def evaluate(
        self, run: Run, trainer: Any, sampled: Loaded[Images, Item], held_out: Mapping[str, Loaded[Images, Item]]
    ) -> dict[str, Any]:
        """Evaluate the trained network, and write predictions and figures in the first process.

        Args:
            run: The run.
            trainer: Trainer with the best weights; every process must come here.
            sampled: Training images.
            held_out: Validation and, where there is one, test.

        Returns:
            Metrics of each of them, and facts of the training images, for `metrics.json`.
        """

    @abstractmethod
    def card(self, best: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the card of the best model tells of this task.

        Args:
            best: `metrics.json` of the best run.
        """

    def run(self) -> FinetuneResult:
        """Train every seed that is not finished, and end with the best model, its metrics and its card.

        Raises:
            UserError: Images that cannot be used, or a folder that holds something else.
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
                self.say(f"{folder}: is finished; choose another --output to train again")
            else:
                output.reopen()
                self._run_seeds(output)
        metrics = dict(read_json(folder / METRICS_FILE)) if self.writes else {}
        return FinetuneResult(output.path, output.manifest, metrics, self.headline)

    def run_arguments(self, run: Run, steps: int) -> TrainingArguments:
        """Return the arguments of the trainer of a run."""
        args = copy.copy(self.arguments)
        args.seed, args.output_dir, args.max_steps, args.save_total_limit = run.seed, str(run.folder), steps, 1
        args.eval_strategy = args.save_strategy = args.logging_strategy = "steps"
        args.eval_steps = args.logging_steps = -(-steps // self.settings.num_evaluations)
        args.save_steps = args.eval_steps * self.settings.evaluations_per_checkpoint
        return args

    def processor(self) -> StedFmImageProcessor:
        """Return what scales the images that the model is given later: like its training images, by default."""
        return StedFmImageProcessor(patch_size=self.config.patch_size)

    def load(self, data: Images, output: Output) -> Loaded[Images, Item]:
        """Read all images once; report and record those that cannot be used."""
        found = load_images(data, self.remember, channels=self.config.num_channels, channels_of=self.channels_of)
        known = output.manifest.items
        for line in describe_failed({place: why for place, why in found.failed.items() if place not in known}):
            self.say(line)
        for place, reason in found.failed.items():
            output.manifest.failed(place, reason)
        return found

    def _run_seeds(self, output: Output) -> None:
        settings, splits, folder = self.settings, self.splits, output.path
        name, new = name_of_model(settings.model), settings.mode in NEW_ENCODER
        if self.writes:
            write_recipe(folder / RECIPE_FILE, settings.recipe(), note=f"trained on {splits.train.name} from {name}")
        if not new and settings.model in PACKAGED:
            self.say(f"{name}: {PACKAGED[settings.model]}")
        for note in self.notes():
            self.say(note)
        held_out = {name: self.load(data, output) for name, data in splits.held_out().items()}
        self.say(f"{splits.train.name}: {splits.counts()}. {splits.how}")
        rate = f"learning rate {settings.highest_learning_rate:.3g}"
        self.say(f"{settings.describe_batch()}, {rate}, mode {settings.mode}")
        before = None if new else read_training_sources(settings.model)
        for seed in settings.seeds:
            run = Run(run_folder(folder, seed), seed)
            if is_finished(folder, seed):
                self.say(f"seed {seed}: is finished")
                if self.writes:
                    remove_checkpoints(run.folder)  # it was stopped before it had
                continue
            if self.writes:
                write_training_sources(run.folder, (splits.train, splits.validation), before=before)
            self._run_seed(run, self.load(self.sample(seed), output), held_out)
        if self.writes:
            limitations = limitations_of((held_out.get("test") or held_out["validation"]).data)
            failed = output.manifest.failures()
            summary = write_summary(folder, settings.seeds, how=splits.how, limitations=limitations, failed=failed)
            write_card(self, summary, held_out)

    def _run_seed(self, run: Run, sampled: Loaded[Images, Item], held_out: Mapping[str, Loaded[Images, Item]]) -> None:
        """Train and evaluate; `metrics.json` is written last, which says that the run is finished."""
        trainer = self.make_trainer(run, sampled, held_out["validation"])
        trainer.train_on(run.curve, self.say)
        merge_adapters(trainer.network)
        found = self.evaluate(run, trainer, sampled, held_out)
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
                "chosen_by": metric,
                "best_step": best_step,
                "best_evaluation": None if best is None else best + 1,
                "evaluations": len(evaluations),
                "steps": trainer.state.global_step,
                "images_seen": trainer.state.global_step * self.settings.effective_batch_size,
                **found,
            }
            write_json(run.folder / METRICS_FILE, metrics)
            remove_checkpoints(run.folder)
        trainer.accelerator.wait_for_everyone()


def describe_failed(failed: Mapping[str, str]) -> list[str]:
    """Return a line for each reason why images are left out."""
    images: dict[str, list[str]] = {}
    for image, reason in failed.items():
        images.setdefault(reason, []).append(image)
    return [
        f"{some_of(names)}: {'is' if len(names) == 1 else 'are'} left out ({reason})"
        for reason, names in images.items()
    ]
