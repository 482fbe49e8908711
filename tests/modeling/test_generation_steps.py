"""Every step of the reverse process, compared with the published formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from tests.generation_models import reference_scheduler, seeded, tiny_pipeline, tiny_unet

SHAPE = (1, 1, 16, 16)
EMBEDDING = torch.linspace(-2, 2, 32)[None]
TOLERANCE = 1e-4
Predict = Callable[[torch.Tensor, int], torch.Tensor]


def wild_unet() -> Any:
    """A network in float64 whose clean images leave the limits, so that clipping matters."""
    unet = tiny_unet().double()
    with torch.no_grad():
        unet.conv_out.weight *= 3
    return unet


def predictions(unet: Any) -> Predict:
    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        with torch.no_grad():
            return unet(sample, timestep, EMBEDDING).sample

    return predict


def noise(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(SHAPE, generator=generator, dtype=dtype).double()


def trajectory(pipeline: Any, steps: int, seed: int = 3, **arguments: Any) -> tuple[list[torch.Tensor], np.ndarray]:
    """The latents after every step of the pipeline, and its image."""
    found = []
    result = pipeline(
        embeddings=EMBEDDING,
        num_inference_steps=steps,
        generator=seeded(seed),
        callback_on_step_end=lambda pipeline, step, timestep, values: found.append(values["latents"]),
        **arguments,
    )
    return found, result.images


def compare(found: list[torch.Tensor], expected: Iterator[torch.Tensor]) -> None:
    for step, (one, two) in enumerate(zip(found, expected, strict=True)):
        assert (one - two).abs().max() <= TOLERANCE, step


def ancestral(predict: Predict, steps: int, seed: int, limits: tuple[float, float]) -> Iterator[torch.Tensor]:
    """Algorithm 2 of Ho et al. 2020 with the posterior variance, and the clip of the reference."""
    generator = seeded(seed)[0]
    beta = np.linspace(1e-4 * 1000 / steps, 0.02 * 1000 / steps, steps)
    alpha_bar = np.cumprod(1 - beta)
    before = np.append(1.0, alpha_bar[:-1])
    sample = noise(generator, torch.float32)
    for t in reversed(range(steps)):
        clean = (sample - math.sqrt(1 - alpha_bar[t]) * predict(sample, t)) / math.sqrt(alpha_bar[t])
        clean = clean.clamp(*limits)
        mean = (math.sqrt(before[t]) * beta[t] * clean + math.sqrt(1 - beta[t]) * (1 - before[t]) * sample) / (
            1 - alpha_bar[t]
        )
        variance = (1 - before[t]) / (1 - alpha_bar[t]) * beta[t]
        sample = mean + (math.sqrt(variance) * noise(generator) if t else 0)
        yield sample


@pytest.mark.parametrize("steps", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_ancestral_sampling_is_that_of_the_reference(steps: int) -> None:
    unet = wild_unet()
    pipeline = tiny_pipeline(
        False, unet, scheduler=reference_scheduler(steps), value_range=(0.0, 1.0), clip_sample_range=(-1.0, 1.0)
    )
    found, images = trajectory(pipeline, steps)
    compare(found, ancestral(predictions(unet), steps, 3, (-1.0, 1.0)))
    np.testing.assert_allclose(images, found[-1][:, 0].clamp(0, 1), atol=1e-6)
    unclipped = list(ancestral(predictions(unet), steps, 3, (-1e6, 1e6)))
    assert (found[-1] - unclipped[-1]).abs().max() > 0.01


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_ddim_is_that_of_song(eta: float, prediction_type: str) -> None:
    unet = wild_unet()
    scheduler = DDIMScheduler.from_config(
        reference_scheduler().config, prediction_type=prediction_type, set_alpha_to_one=True
    )
    pipeline = tiny_pipeline(False, unet, scheduler=scheduler)
    found, images = trajectory(pipeline, 20, eta=eta)
    predict = predictions(unet)
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))

    def expected() -> Iterator[torch.Tensor]:
        generator = seeded(3)[0]
        sample = noise(generator, torch.float32)
        for t in reversed(range(0, 1000, 50)):
            now, then = alpha_bar[t], alpha_bar[t - 50] if t else 1.0
            output = predict(sample, t)
            clean = {
                "epsilon": (sample - math.sqrt(1 - now) * output) / math.sqrt(now),
                "v_prediction": math.sqrt(now) * sample - math.sqrt(1 - now) * output,
                "sample": output,
            }[prediction_type].clamp(-1, 1)
            direction = (sample - math.sqrt(now) * clean) / math.sqrt(1 - now)
            sigma = eta * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 - now / then)
            sample = math.sqrt(then) * clean + math.sqrt(1 - then - sigma**2) * direction
            sample = sample + (sigma * noise(generator) if eta else 0)
            yield sample

    compare(found, expected())
    np.testing.assert_allclose(images, ((found[-1][:, 0] + 1) / 2).clamp(0, 1), atol=1e-6)


def test_dpm_solver_is_that_of_lu() -> None:
    """Algorithm 2 (2M) of Lu et al., "DPM-Solver++", 2022, whose last step has order 1."""
    unet = wild_unet()
    scheduler = DPMSolverMultistepScheduler.from_config(reference_scheduler().config, timestep_spacing="trailing")
    pipeline = tiny_pipeline(False, unet, scheduler=scheduler)
    found, _ = trajectory(pipeline, 20)
    predict = predictions(unet)
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))

    def expected() -> Iterator[torch.Tensor]:
        sample = noise(seeded(3)[0], torch.float32)
        times = list(range(999, 0, -50))
        earlier: tuple[torch.Tensor, float] | None = None
        for number, t in enumerate(times):
            signal, spread = math.sqrt(alpha_bar[t]), math.sqrt(1 - alpha_bar[t])
            clean = ((sample - spread * predict(sample, t)) / signal).clamp(-1, 1)
            if number + 1 == len(times):  # the next noise level is zero
                yield clean
                return
            after = alpha_bar[times[number + 1]]
            step = math.log(math.sqrt(after / (1 - after))) - math.log(signal / spread)
            estimate = clean
            if earlier is not None:
                ratio = earlier[1] / step
                estimate = (1 + 1 / (2 * ratio)) * clean - 1 / (2 * ratio) * earlier[0]
            sample = math.sqrt(1 - after) / spread * sample - math.sqrt(after) * math.expm1(-step) * estimate
            earlier = clean, step
            yield sample

    compare(found, expected())


def test_guidance_extrapolates_from_the_prediction_without_a_condition() -> None:
    unet = tiny_unet().double()
    pipeline = tiny_pipeline(False, unet, scheduler=DDIMScheduler(clip_sample=False), condition_dropout=0.1)
    pipeline.register_to_config(clip_sample_range=[-1e6, 1e6])
    start = noise(seeded(0)[0])
    found, _ = trajectory(pipeline, 1, latents=start, guidance_scale=3.0)
    with torch.no_grad():
        without, with_condition = unet(start, 0).sample, unet(start, 0, EMBEDDING).sample
    alpha_bar = 1 - 1e-4
    direction = without + 3 * (with_condition - without)
    expected = (start - math.sqrt(1 - alpha_bar) * direction) / math.sqrt(alpha_bar)
    assert (found[0] - expected).abs().max() <= TOLERANCE
