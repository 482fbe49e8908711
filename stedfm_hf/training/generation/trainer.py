"""Trainer of diffusion models: conditions of the augmented crops, moving average, and evaluations of its samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file

from stedfm_hf.modeling.unet_stedfm import StedFmUNet
from stedfm_hf.runs import UserError
from stedfm_hf.training.generation.conditions import Condition
from stedfm_hf.training.generation.network import DenoisingNetwork
from stedfm_hf.training.streamed_trainer import StreamedTrainer

if TYPE_CHECKING:
    from stedfm_hf.training.generation.evaluation import GenerationEvaluator


class GenerationTrainer(StreamedTrainer):
    """Trainer of `StedFmUNet` on the batches of `EndlessBatches`.

    Args:
        condition: Condition of the images, whose columns the batches have.
        kwargs: Arguments of `StreamedTrainer`.
    """

    held_out: GenerationEvaluator | None

    def __init__(self, *, condition: Condition, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.condition = condition

    @property
    def network(self) -> DenoisingNetwork:
        """Network without its wrappers."""
        return cast(DenoisingNetwork, self.accelerator.unwrap_model(self.model, keep_torch_compile=False))

    @property
    def unet(self) -> StedFmUNet:
        """U-Net, with the weights of the last step."""
        return self.network.unet

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Prepare the batch and its conditions on the device, and return the loss of the network."""
        parts = []
        for part in inputs["parts"]:
            ready = self.preparation(part, epoch=part["epoch"])
            parts.append(ready | self.condition(ready["images"], part))
        loss = model(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        return (loss, {"loss": loss}) if return_outputs else loss

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return the names of the decayed parameters: matrices and kernels."""
        return [name for name, value in model.named_parameters() if value.ndim > 1]

    def held_out_metrics(self) -> dict[str, float]:
        """Evaluate the moving average of the weights on the held-out crops, and return the metrics.

        Only the first process generates images; the others wait. All processes get the same metrics.
        """
        assert self.held_out is not None
        metrics = self._with_average(self.held_out.loss_metrics)
        if self.args.process_index == 0:
            metrics |= self._with_average(self.held_out.sample_metrics, step=self.state.global_step)
        self.accelerator.wait_for_everyone()
        return metrics

    def _with_average(self, evaluate: Any, **values: Any) -> dict[str, float]:
        network = self.network
        was_training = network.training
        network.eval()
        try:
            if self.average is None:
                return dict(evaluate(network, dtype=self.autocast_dtype, **values))
            with self.average.applied():
                return dict(evaluate(network, dtype=self.autocast_dtype, **values))
        finally:
            network.train(was_training)

    def check_checkpoint(self, folder: Path) -> None:
        """Check that a checkpoint has the same network.

        Args:
            folder: Folder of the checkpoint.

        Raises:
            UserError: The networks differ.
        """
        saved = {name: tuple(value.shape) for name, value in load_file(folder / "model.safetensors").items()}
        if saved != {name: tuple(value.shape) for name, value in self.network.state_dict().items()}:
            raise UserError(f"{folder}: is a checkpoint of another network; choose another --output")
