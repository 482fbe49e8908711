"""The folder of a pretraining: what it was begun with, its curve, and what is in it at the end (ours)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi
from transformers.trainer import TRAINING_ARGS_NAME

from stedfm_hf.data.repository.files import SplitFiles
from stedfm_hf.runs import Manifest, UserError, check_same_settings, manifest_path
from stedfm_hf.runs.recipes import write_recipe
from stedfm_hf.training.arguments import DataArguments, ModelArguments, PretrainArguments, used_recipe
from stedfm_hf.training.card import describe_machine, name_of, write_card
from stedfm_hf.training.checkpoints import newest_whole, steps_of
from stedfm_hf.training.curve import CURVE_FILE, Curve
from stedfm_hf.training.figures import save_figures

if TYPE_CHECKING:
    from stedfm_hf.training.trainer import PretrainingTrainer

VERB = "pretrain"
RECIPE_FILE = "recipe.yaml"
AVERAGE_FOLDER = "average"
MAY_CHANGE = ("logging_steps", "save_steps", "check_steps", "bf16")
"""Values of a recipe that do not change what is computed; the others must stay when a run goes on."""


@dataclass(frozen=True)
class PretrainResult:
    """What a pretraining made.

    Args:
        folder: the complete Hub-layout folder of the masked autoencoder.
        steps: optimiser steps.
        samples: samples seen, of all processes.
        seconds: time of this call's training.
    """

    folder: Path
    steps: int
    samples: int
    seconds: float

    def summary(self) -> str:
        """One line for the terminal."""
        return f"{self.folder}: {self.steps:,} steps, {self.samples:,} crops seen"


class Output:
    """The output folder of a run; only the first process writes.

    Args:
        data: what is trained on.
        model: what is trained.
        arguments: how; `max_steps` is settled.
        train: the training splits.

    Attributes:
        folder: where it is.
        curve: `curve.csv` in it.
        manifest: `manifest.json` in it.
    """

    def __init__(
        self, data: DataArguments, model: ModelArguments, arguments: PretrainArguments, train: Sequence[SplitFiles]
    ) -> None:
        self.folder = Path(str(arguments.output_dir))
        self.curve = Curve(self.folder / CURVE_FILE)
        self.is_writer = arguments.process_index == 0
        self.steps, self.effective_batch = arguments.max_steps, arguments.effective_batch
        self.hub_id = (arguments.hub_model_id or self.folder.name) if arguments.push_to_hub else None
        self.private, self.hub_token = arguments.hub_private_repo is not False, arguments.hub_token
        # The library would send checkpoints on its way, and put its own card in the place of ours.
        arguments.push_to_hub = False
        self.train = train
        self.recipe = used_recipe(data, model, arguments)
        settings = {name: value for name, value in self.recipe.items() if name not in MAY_CHANGE}
        self.manifest = Manifest(
            VERB,
            settings=settings | {"max_steps": arguments.max_steps, "data": [_identity(files) for files in train]},
            options={"processes": arguments.world_size, "batch": arguments.describe_batch()},
            seed=arguments.seed,
        )

    def begin(self, say: Callable[[str], None]) -> PretrainResult | None:
        """Takes up what an earlier run left, or makes the folder.

        Returns:
            What was made, if the run is finished already: nothing is left to do.

        Raises:
            UserError: the folder cannot be written, holds something else, was begun with other settings, or is
                finished and cannot be sent to the Hub.
        """
        record = manifest_path(self.folder, folder=True)
        if record.exists() and (old := Manifest.load(record)).ended is not None:
            check_same_settings(old, self.manifest)
            say(f"{self.folder}: is finished; another output_dir begins a new run")
            if self.hub_id is not None and self.is_writer:
                push(self.folder, self.hub_id, private=self.private, token=self.hub_token)
            return PretrainResult(self.folder, self.steps, self.steps * self.effective_batch, 0.0)
        if not self.is_writer:
            return None
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file; name a folder")
        if record.exists():
            self.manifest.resume_from(Manifest.load(record))
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError(f"{self.folder}: holds other files; name a new folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror}); name another folder") from error
        self.manifest.save(record)
        names = ", ".join(name_of(files.repo) for files in self.train)
        write_recipe(self.folder / RECIPE_FILE, self.recipe, note=f"trained on {names}")
        if steps_of(self.folder) and newest_whole(self.folder, lambda line: None) is None:
            say("no checkpoint is whole: the run begins anew")
        return None

    def end(
        self, trainer: PretrainingTrainer, train: Sequence[SplitFiles], model: ModelArguments, *, seconds: float
    ) -> PretrainResult:
        """Writes the final model, the average if there is one, figures and card; records that the run is finished.

        Args:
            trainer: after its last step; every process must come here.
            train: the training splits.
            model: what was trained.
            seconds: time of the training in this call.

        Raises:
            UserError: all is done, but cannot be sent to the Hub.
        """
        trainer.save_model(str(self.folder))
        reconstructions = trainer.reconstructions()
        if self.is_writer:
            # The library keeps its arguments as a pickle, which nobody needs: they are in the recipe.
            (self.folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            if trainer.average is not None:
                trainer.average.as_encoder().save_pretrained(self.folder / AVERAGE_FOLDER)
                trainer.processing_class.save_pretrained(self.folder / AVERAGE_FOLDER)
            rows = self.curve.rows()
            save_figures(self.folder, rows, reconstructions)
            write_card(
                self.folder,
                trainer.network,
                train=train,
                rows=rows,
                steps=trainer.state.global_step,
                samples=trainer.samples,
                architecture=model.architecture,
                recipe=self.recipe,
                begun_from=model.init_from,
                name=self.hub_id,
                machine=describe_machine(trainer.args.world_size, trainer.args.device),
                precision="bfloat16" if trainer.args.bf16 else "float32",
                held_out_crops=None if trainer.held_out is None else len(trainer.held_out),
            )
            # Before it is sent: the run is finished whatever the Hub says.
            self.manifest.finish()
            self.manifest.save(manifest_path(self.folder, folder=True))
            if self.hub_id is not None:
                push(self.folder, self.hub_id, private=self.private, token=self.hub_token)
        return PretrainResult(self.folder, trainer.state.global_step, trainer.samples, seconds)


def push(folder: Path, hub_id: str, *, private: bool, token: str | None = None) -> None:
    """Sends the final folder to the Hub, without checkpoints, and without the events of TensorBoard.

    Raises:
        UserError: it cannot be sent; the folder is as it was.
    """
    api = HfApi(token=token)
    try:
        api.create_repo(hub_id, private=private, exist_ok=True)
        # The events name the host and its folders; the curve says the same.
        api.upload_folder(repo_id=hub_id, folder_path=folder, ignore_patterns=["checkpoint-*", "runs/*"])
    except Exception as error:  # the errors of the Hub have no base but this
        raise UserError(
            f"{folder}: is finished, but cannot be sent to {hub_id} ({' '.join(str(error).split())[:200]}); "
            "the same command, given again, only sends it"
        ) from error


def _identity(files: SplitFiles) -> dict[str, Any]:
    """Tells data sets apart by what they are, not by where they lie."""
    shards = "/".join(f"{Path(shard.file).name}:{shard.rows}" for shard in files.shards)
    return {
        "name": Path(files.repo).name,
        "split": files.split,
        "crops": files.rows,
        "shards": hashlib.sha256(shards.encode()).hexdigest()[:16],
    }
