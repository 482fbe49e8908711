"""Objective of the diffusion model: noisy images, what the network predicts from them, and the weight of each sample.

Source:
    Noise schedules and predictions are those of diffusers' schedulers. Velocity: Salimans & Ho, "Progressive
    Distillation for Fast Sampling of Diffusion Models", 2022. Weights: Hang et al., "Efficient Diffusion Training via
    Min-SNR Weighting Strategy", 2023. The reference protocol predicts the noise, unweighted, with linear betas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import DDIMScheduler

STEPS = 1000
"""Number of steps of the noise schedules (reference protocol)."""
BETAS = {"cosine": "squaredcos_cap_v2", "linear": "linear"}
"""Noise schedules of diffusers by name; `linear` is from 1e-4 to 0.02 (reference protocol)."""


@dataclass(frozen=True)
class DiffusionObjective:
    """Training objective of a diffusion model.

    Attributes:
        noise_schedule: Name of the noise schedule in `BETAS`.
        prediction_type: Prediction of the network: "v_prediction", "epsilon" or "sample", as in diffusers.
        min_snr_gamma: Largest weight of the error of the clean image, as a ratio of signal to noise; None for an
            unweighted error of the prediction.
        value_range: Values of the network for intensities 0 and 1.

    Example:
        >>> objective = DiffusionObjective()
        >>> clean, noise, times = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8), torch.tensor([0, 999])
        >>> noisy, target = objective.noisy(clean, noise, times), objective.target(clean, noise, times)
        >>> float(objective.loss(target, target, times))
        0.0
    """

    noise_schedule: str = "cosine"
    prediction_type: str = "v_prediction"
    min_snr_gamma: float | None = 5.0
    value_range: tuple[float, float] = (-1.0, 1.0)

    @cached_property
    def scheduler(self) -> DDIMScheduler:
        """Scheduler of diffusers with this noise schedule and prediction, which is saved with the pipeline."""
        return DDIMScheduler(
            num_train_timesteps=STEPS,
            beta_schedule=BETAS[self.noise_schedule],
            prediction_type=self.prediction_type,
            # The first step is the noisiest one; `leading`, the default, would start below it.
            timestep_spacing="trailing",
            clip_sample=True,
            clip_sample_range=1.0,
        )

    def scaled(self, images: torch.Tensor) -> torch.Tensor:
        """Scale intensities in [0, 1] to the values of the network.

        Args:
            images: Images (B, C, H, W) in [0, 1].
        """
        low, high = self.value_range
        return images * (high - low) + low

    def noisy(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Add noise to clean images.

        Args:
            clean: Clean images (B, C, H, W), see `scaled`.
            noise: Standard normal noise of the same shape.
            times: Step of the noise schedule of each image, (B,) int64.
        """
        signal, spread = self._levels(times)
        return signal * clean + spread * noise

    def target(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Return what the network should predict, (B, C, H, W); arguments as for `noisy`."""
        if self.prediction_type == "sample":
            return clean
        if self.prediction_type == "epsilon":
            return noise
        signal, spread = self._levels(times)
        return signal * noise - spread * clean

    def weights(self, times: torch.Tensor) -> torch.Tensor:
        """Return the weight of each sample, (B,) float32.

        Args:
            times: Step of the noise schedule of each image, (B,) int64.
        """
        if self.min_snr_gamma is None:
            return torch.ones_like(times, dtype=torch.float32)
        kept = self.scheduler.alphas_cumprod.to(times.device)[times].double()
        ratio = kept / (1.0 - kept)
        # The error of the velocity is that of the clean image times (ratio + 1), of the noise times ratio.
        divisor = {"sample": torch.ones_like(ratio), "epsilon": ratio, "v_prediction": ratio + 1.0}
        return (ratio.clamp(max=self.min_snr_gamma) / divisor[self.prediction_type]).float()

    def loss(self, prediction: torch.Tensor, target: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean squared error of a batch, a scalar.

        Args:
            prediction: Prediction of the network (B, C, H, W).
            target: Result of `target`.
            times: Step of the noise schedule of each image, (B,) int64.
        """
        errors = (prediction.float() - target).square().flatten(1).mean(dim=1)
        return (self.weights(times) * errors).mean()

    def _levels(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors of the clean image and of the noise, each (B, 1, 1, 1)."""
        kept = self.scheduler.alphas_cumprod.to(times.device)[times].view(-1, 1, 1, 1)
        return kept.sqrt(), (1.0 - kept).sqrt()
