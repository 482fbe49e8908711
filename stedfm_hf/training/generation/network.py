"""Network of a training of the diffusion model: the U-Net, and the module that the trainer trains."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from stedfm_hf.data.repository.files import SplitFiles
from stedfm_hf.data.streaming.stream import CropStream
from stedfm_hf.modeling.unet_stedfm import StedFmUNet
from stedfm_hf.runs import UserError
from stedfm_hf.training.generation.conditions import EmbeddingCondition
from stedfm_hf.training.generation.objective import DiffusionObjective
from stedfm_hf.training.generation.preparation import GenerationPreparation
from stedfm_hf.training.generation.settings import GenerationSettings
from stedfm_hf.training.network import isolated_rng

STATISTICS_CROPS = 2048
"""Number of training crops whose embeddings give the mean and standard deviation of the condition."""


class DenoisingNetwork(torch.nn.Module):
    """U-Net with its objective: returns the loss of noisy images.

    Args:
        unet: Denoising network.
        objective: Objective of the training.
    """

    def __init__(self, unet: StedFmUNet, objective: DiffusionObjective) -> None:
        super().__init__()
        self.unet, self.objective = unet, objective

    def forward(
        self,
        images: torch.Tensor,
        times: torch.Tensor,
        noise: torch.Tensor,
        keep: torch.Tensor,
        **conditions: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            images: Clean images (B, 1, S, S), scaled to [0, 1].
            times: Step of the noise schedule of each image, (B,) int64.
            noise: Standard normal noise (B, 1, S, S).
            keep: Whether each image is shown with its condition, (B,) bool.
            conditions: Conditions, as `StedFmUNet.forward` takes them.

        Returns:
            Weighted mean squared error, a scalar.
        """
        clean = self.objective.scaled(images)
        noisy = self.objective.noisy(clean, noise, times)
        prediction = self.unet(noisy, times, **conditions, condition_mask=keep, return_dict=False)[0]
        return self.objective.loss(prediction, self.objective.target(clean, noise, times), times)


def new_unet(settings: GenerationSettings, *, image_size: int, **conditions: Any) -> StedFmUNet:
    """Return a U-Net with random weights.

    Args:
        settings: Settings of the training.
        image_size: Height and width of the images in pixels.
        conditions: `condition_dim` and `num_classes` of the network.

    Raises:
        UserError: The image size does not fit the network.
    """
    with isolated_rng(settings.seed):
        unet = StedFmUNet(
            sample_size=image_size,
            base_channels=settings.base_channels,
            channel_multipliers=tuple(settings.channel_multipliers),
            patch_size=settings.patch_size,
            **conditions,
        )
    if image_size % unet.size_multiple:
        raise UserError(
            f"images of {image_size} x {image_size} pixels do not fit the network, which needs a multiple of "
            f"{unet.size_multiple}; change --image-size, --patch-size or --channel-multipliers"
        )
    return unet


def standardise_condition(
    unet: StedFmUNet, condition: EmbeddingCondition, files: SplitFiles, preparation: GenerationPreparation
) -> None:
    """Set the mean and standard deviation of the condition from the embeddings of the first training crops.

    Args:
        unet: Network, changed in place.
        condition: Condition of the training.
        files: Training split.
        preparation: Preparation of the training.
    """
    device = next(condition.encoder.parameters()).device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the dropped crops are not those of the training
        stream = CropStream(
            files,
            batch_size=min(128, files.rows),
            seed=preparation.seed,
            epoch=0,
            rank=0,
            world_size=1,
            drop_last=True,
            columns=(),
            workers=1,
        )
    embeddings: list[torch.Tensor] = []
    for batch in stream:
        moved = {name: batch[name].to(device) for name in ("pixels", "intensity_range", "index")}
        images = preparation.images(moved, epoch=0)
        embeddings.append(condition(images, batch)["condition"].double().cpu())
        if sum(map(len, embeddings)) >= STATISTICS_CROPS:
            break
    found = torch.cat(embeddings)
    unet.condition_mean.copy_(found.mean(dim=0))
    # A dimension that hardly varies must not become large noise.
    std = found.std(dim=0, correction=0)
    unet.condition_std.copy_(std.clamp(min=1e-3 * float(std.max()) + 1e-12))
