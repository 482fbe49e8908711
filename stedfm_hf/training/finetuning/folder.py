"""The folder of a fine-tuning: what it was begun with, a run for each seed, and the best model with its card."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stedfm_hf.inference.loading import weights_sha256
from stedfm_hf.labels.splits import Splits, limitations_of
from stedfm_hf.runs import Manifest, UserError, check_same_settings, manifest_path, read_json
from stedfm_hf.runs.recipes import write_recipe
from stedfm_hf.training.finetuning.arguments import LOCAL, FinetuningArguments, SplitArguments, WeightArguments
from stedfm_hf.training.finetuning.feeding import Side
from stedfm_hf.training.finetuning.network import DRAWN, name_of_model, source_of
from stedfm_hf.training.finetuning.summary import METRICS_FILE, write_summary
from stedfm_hf.training.parsing import recipe_values

RECIPE_FILE = "recipe.yaml"
MAY_CHANGE = ("save_checks", "bf16", "overlays")
"""Values of a recipe that do not change what is computed; the others must stay when a run goes on."""


class Folder:
    """The output folder; only the first process writes.

    Args:
        verb: that makes it.
        data: what is trained on.
        model: what is trained.
        arguments: how.
        splits: Images that are trained, selected and tested on.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(
        self,
        verb: str,
        data: SplitArguments,
        model: WeightArguments,
        arguments: FinetuningArguments,
        splits: Splits[Any],
    ) -> None:
        self.path = Path(str(arguments.output_dir))
        self.model, self.splits, self.arguments = model, splits, arguments
        self.is_writer = arguments.process_index == 0
        self.recipe = recipe_values((data, model, arguments), LOCAL)
        settings = {name: value for name, value in self.recipe.items() if name not in MAY_CHANGE}
        self.manifest = Manifest(
            verb,
            settings=settings | {"data": {name: images.fingerprint for name, images in splits.named().items()}},
            options={"processes": arguments.world_size, "batch": arguments.describe_batch(), "seeds": arguments.seeds},
            model=name_of_model(model.model),
            weights_sha256=None if model.mode in DRAWN else weights_sha256(source_of(model)),
        )

    def begin(self, seeds: Sequence[int], say: Callable[[str], None]) -> dict[str, Any] | None:
        """Takes up what an earlier call left, or makes the folder.

        Returns:
            The figures, if all is finished already.

        Raises:
            UserError: the folder cannot be written, holds something else, or was begun with other settings.
        """
        record = manifest_path(self.path, folder=True)
        if record.exists():
            old = Manifest.load(record)
            check_same_settings(old, self.manifest)
            if old.ended is not None and (self.path / METRICS_FILE).exists():
                found = dict(read_json(self.path / METRICS_FILE))
                if found["seeds"] == list(seeds):
                    say(f"{self.path}: is finished; another output_dir begins a new run")
                    return found
        if not self.is_writer:
            return None
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; name a folder")
        if record.exists():
            self.manifest.resume_from(Manifest.load(record))
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(f"{self.path}: holds other files; name a new folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); name another folder") from error
        self.manifest.save(record)
        note = f"trained on {self.splits.train.name} from {name_of_model(self.model.model)}"
        write_recipe(self.path / RECIPE_FILE, self.recipe, note=note)
        return None

    def end(
        self,
        seeds: Sequence[int],
        failed: Mapping[str, str],
        sides: Mapping[str, Side[Any, Any]],
        write_card: Callable[[Mapping[str, Any]], None],
    ) -> dict[str, Any]:
        """Puts the best model to the top, writes figures of all seeds and the card; records that all is finished.

        Args:
            seeds: of the runs, all of them finished.
            failed: images that could not be read, with the reason.
            sides: validation, and test where there is one.
            write_card: called with the figures of all seeds, when all else is there.
        """
        if not self.is_writer:
            return {}
        doubts = limitations_of((sides.get("test") or sides["validation"]).data)
        summary = write_summary(self.path, seeds, how=self.splits.how, doubts=doubts, failed=failed)
        write_card(summary)
        for place, reason in failed.items():
            self.manifest.failed(place, reason)
        self.manifest.finish()
        self.manifest.save(manifest_path(self.path, folder=True))
        return summary
