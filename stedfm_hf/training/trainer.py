"""Trainer of masked autoencoders: reproducible masks, weight decay of matrices, and held-out evaluation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import UserError
from stedfm_hf.training.streamed_trainer import StreamedTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from stedfm_hf.reports.reconstructions import Reconstruction
    from stedfm_hf.training.averaging import EncoderAverage
    from stedfm_hf.training.held_out_evaluation import HeldOutEvaluator
    from stedfm_hf.training.settings import PretrainSettings

REFERENCE_HALF_PERIOD = 20
"""Half period of the oscillating learning rate of the reference protocol, in epochs."""


class PretrainingTrainer(StreamedTrainer):
    """Trainer of `StedFmForPreTraining` on the batches of `EndlessBatches` (see `StreamedTrainer`)."""

    settings: PretrainSettings
    held_out: HeldOutEvaluator | None
    average: EncoderAverage | None

    # ------------------------------------------------------------------------------------- training step

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Prepare the batch on the device, and return the loss of the model."""
        ready = [self.preparation(part, epoch=part["epoch"]) for part in inputs["parts"]]
        whole = {name: torch.cat([part[name] for part in ready]) for name in ready[0]}
        output = model(**whole)
        return (output.loss, output) if return_outputs else output.loss

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return the names of the decayed parameters: matrices only; all of them with the reference protocol."""
        # ZeRO-3 partitions parameters and keeps their shape in `ds_shape`.
        shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in model.named_parameters()}
        return [name for name, shape in shapes.items() if self.settings.protocol == "reference" or len(shape) == 2]

    def rate_of_step(self) -> Callable[[int], float] | None:
        """Return the oscillating learning rate of the reference protocol."""
        if self.settings.protocol != "reference":
            return None
        per_epoch = self.batches.batches_per_epoch[0] / self.args.gradient_accumulation_steps
        return lambda step: 0.5 * (1.0 + math.cos(math.pi * int(step / per_epoch) / REFERENCE_HALF_PERIOD))

    # ------------------------------------------------------------------------------------- evaluation

    @property
    def network(self) -> StedFmForPreTraining:
        """Masked autoencoder without its wrappers."""
        return cast(StedFmForPreTraining, self.accelerator.unwrap_model(self.model, keep_torch_compile=False))

    def held_out_metrics(self) -> dict[str, float]:
        """Evaluate on the held-out crops, and return the metrics."""
        assert self.held_out is not None
        return self.held_out.evaluate(self.network, device=self.args.device, dtype=self.autocast_dtype).metrics()

    def reconstructions(self) -> list[Reconstruction]:
        """Return reconstructions of some held-out crops; none without held-out crops."""
        if self.held_out is None:
            return []
        return self.held_out.reconstructions(self.network, device=self.args.device, dtype=self.autocast_dtype)

    # ------------------------------------------------------------------------------------- checkpoints

    def check_checkpoint(self, folder: Path) -> None:
        """Check that a checkpoint has the same configuration.

        Args:
            folder: Folder of the checkpoint.

        Raises:
            UserError: The configurations differ; the message lists the differences.
        """
        kind = type(self.model.config)
        saved, current = kind.from_pretrained(folder).to_dict(), self.model.config.to_dict()
        # Only the fields of the class: other fields depend on saving and on the version of the library.
        differing = [key for key in kind.__annotations__ if key in current and saved.get(key) != current[key]]
        if differing:
            shown = "; ".join(f"{key}: {saved.get(key)!r} there, {current[key]!r} now" for key in differing[:4])
            raise UserError(f"{folder}: is a checkpoint of another model ({shown}); choose another --output")
