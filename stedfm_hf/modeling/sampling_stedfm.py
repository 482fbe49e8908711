"""Arithmetic of diffusion: noise levels, clean images from predictions, and noise that no batch changes."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def split_generator(
    generator: torch.Generator | Sequence[torch.Generator] | None, batch_size: int
) -> list[torch.Generator]:
    """Return one random generator for every image.

    The noise of an image then depends on its own generator only: the same image alone and in a batch starts from the
    same noise.

    Args:
        generator: One generator, whose numbers seed those of the images in their order; a list of one for each image,
            which is returned; or None for new seeds.
        batch_size: Number of images B.

    Raises:
        ValueError: If the length of the list is not B.

    Example:
    ```python
    >>> one, two = (split_generator(torch.Generator().manual_seed(7), count) for count in (1, 2))
    >>> one[0].initial_seed() == two[0].initial_seed()
    True

    ```
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        if len(generator) != batch_size:
            raise ValueError(f"{len(generator)} generators for {batch_size} images; give one, or one for each image")
        return list(generator)
    device = "cpu" if generator is None else generator.device
    # One number at a time: how many are sampled at once must not matter.
    seeds = [
        int(torch.randint(2**62, (1,), generator=generator, device=device, dtype=torch.int64))
        for _ in range(batch_size)
    ]
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def sample_noise(
    shape: tuple[int, ...], generators: Sequence[torch.Generator], device: torch.device | str, dtype: torch.dtype
) -> torch.Tensor:
    """Sample standard normal noise (B, C, H, W), each image with its own generator.

    Args:
        shape: B, C, H, W.
        generators: B generators.
        device: Device of the result.
        dtype: Dtype of the result; the noise is sampled in float32, so that it is the same for every dtype.
    """
    return randn_tensor(shape, list(generators), torch.device(device), torch.float32).to(dtype)


def signal_and_noise(scheduler: Any, index: int, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of image and noise in the noisy image x_t = signal * x_0 + noise * e.

    Args:
        scheduler: Scheduler of diffusers after `set_timesteps`.
        index: Number of the step, from 0.
        timestep: Step of the noise schedule.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:  # solvers with noise levels between those of the training
        sigma = sigmas[index].double()
        signal = 1 / (1 + sigma.square()).sqrt()
        return signal, sigma * signal
    return _factors(scheduler.alphas_cumprod[timestep])


def previous_signal_and_noise(scheduler: Any, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of image and noise after a step of a `DDIMScheduler` from `timestep`."""
    previous = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    return _factors(scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod)


def _factors(alpha_cumprod: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    alpha_cumprod = alpha_cumprod.double()
    return alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt()


def clean_image(
    output: torch.Tensor, sample: torch.Tensor, signal: torch.Tensor, noise: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """Return the clean image that a prediction of the network implies.

    Args:
        output: Prediction (B, C, H, W).
        sample: Noisy images (B, C, H, W).
        signal: Factor of the image in the noisy image.
        noise: Factor of the noise in the noisy image.
        prediction_type: `"epsilon"` (noise), `"v_prediction"` (velocity) or `"sample"` (clean image).

    Source:
        Ho et al., "Denoising Diffusion Probabilistic Models", 2020; velocity: Salimans and Ho, "Progressive
        Distillation for Fast Sampling of Diffusion Models", 2022.
    """
    if prediction_type == "epsilon":
        return (sample - noise * output) / signal
    return signal * sample - noise * output if prediction_type == "v_prediction" else output


def clip_prediction(
    output: torch.Tensor,
    sample: torch.Tensor,
    signal: torch.Tensor,
    noise: torch.Tensor,
    prediction_type: str,
    limits: Sequence[float],
) -> torch.Tensor:
    """Change a prediction so that the clean image that it implies is within limits.

    The schedulers of diffusers clip some solvers only, and only to symmetric limits.

    Args:
        output: Prediction (B, C, H, W).
        sample: Noisy images (B, C, H, W).
        signal: Factor of the image in the noisy image.
        noise: Factor of the noise in the noisy image.
        prediction_type: See `clean_image`.
        limits: Lowest and highest value of a clean image.

    Returns:
        Prediction (B, C, H, W), unchanged where the image is within the limits.
    """
    clean = clean_image(output, sample, signal, noise, prediction_type)
    clipped = clean.clamp(*limits)
    changed = clipped
    if prediction_type == "epsilon":
        changed = (sample - signal * clipped) / noise
    elif prediction_type == "v_prediction":
        changed = (signal * sample - clipped) / noise
    return torch.where(clean == clipped, output, changed).to(output.dtype)


__all__ = [
    "PREDICTION_TYPES",
    "clean_image",
    "clip_prediction",
    "sample_noise",
    "previous_signal_and_noise",
    "signal_and_noise",
    "split_generator",
]
