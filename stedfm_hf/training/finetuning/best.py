"""The best weights so far, kept beside those that are trained (ours).

Only what is trained is kept, in memory and in every checkpoint: a run that goes on knows its best model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from stedfm_hf.modeling.modeling_stedfm import StedFmPreTrainedModel
from stedfm_hf.runs import UserError, atomic_path

BEST_FILE = "best.safetensors"


class Best:
    """Weights of the check that was the best.

    Args:
        network: not wrapped; what is not frozen when this is made is kept, statistics of batch norms as well.
    """

    def __init__(self, network: StedFmPreTrainedModel) -> None:
        self.network = network
        frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self.names = [name for name in network.state_dict() if name not in frozen]
        self.weights: dict[str, torch.Tensor] = {}

    def keep(self) -> None:
        """Takes the weights as they are now."""
        state = self.network.state_dict()
        self.weights = {name: state[name].detach().cpu().clone() for name in self.names}

    def restore(self) -> None:
        """Puts the kept weights back into the network."""
        self.network.load_state_dict(self.weights, strict=False)

    def save(self, folder: Path) -> None:
        """Writes them into a checkpoint, if there are any."""
        if self.weights:
            with atomic_path(folder / BEST_FILE) as temporary:
                save_file({name: value.contiguous() for name, value in self.weights.items()}, temporary)

    def load(self, folder: Path) -> None:
        """Takes those of a checkpoint.

        Raises:
            UserError: they are of another model.
        """
        if not (folder / BEST_FILE).exists():
            return
        self.weights = load_file(folder / BEST_FILE)
        if set(self.weights) != set(self.names):
            raise UserError(f"{folder}: is a checkpoint of another model; name another output_dir")
