"""The objective has the noise, predictions and weights of diffusers and of the papers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from stedfm_hf.training.generation.objective import STEPS, DiffusionObjective

GENERATOR = torch.Generator().manual_seed(0)
CLEAN, NOISE = torch.rand(8, 1, 16, 16, generator=GENERATOR) * 2 - 1, torch.randn(8, 1, 16, 16, generator=GENERATOR)
TIMES = torch.tensor([0, 1, 50, 200, 500, 800, 990, 999])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_noise_and_velocity_are_those_of_diffusers(schedule: str) -> None:
    objective = DiffusionObjective(noise_schedule=schedule)
    scheduler = DDPMScheduler.from_config(objective.scheduler.config)
    torch.testing.assert_close(objective.noisy(CLEAN, NOISE, TIMES), scheduler.add_noise(CLEAN, NOISE, TIMES))
    torch.testing.assert_close(objective.target(CLEAN, NOISE, TIMES), scheduler.get_velocity(CLEAN, NOISE, TIMES))


def test_the_linear_schedule_is_the_published_one() -> None:
    betas = DiffusionObjective(noise_schedule="linear").scheduler.betas
    torch.testing.assert_close(betas, torch.linspace(1e-4, 0.02, STEPS))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_weighted_error_of_all_predictions_is_that_of_the_clean_image(schedule: str) -> None:
    """An error of the clean image has the same weighted loss, whatever the network predicts."""
    wrong = CLEAN + 0.1 * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))
    losses = {}
    for kind in ("sample", "epsilon", "v_prediction"):
        objective = DiffusionObjective(noise_schedule=schedule, prediction_type=kind, min_snr_gamma=5.0)
        times = TIMES[2:6]
        kept = objective.scheduler.alphas_cumprod.double()[times].view(-1, 1, 1, 1)
        noisy = objective.noisy(CLEAN[2:6], NOISE[2:6], times).double()
        noise = ((noisy - kept.sqrt() * wrong[2:6]) / (1 - kept).sqrt()).float()
        prediction = objective.target(wrong[2:6], noise, times)
        losses[kind] = float(objective.loss(prediction, objective.target(CLEAN[2:6], NOISE[2:6], times), times))
    assert losses["epsilon"] == pytest.approx(losses["sample"], rel=1e-3)
    assert losses["v_prediction"] == pytest.approx(losses["sample"], rel=1e-3)


def test_weights_are_limited_and_unweighted_without_gamma() -> None:
    objective = DiffusionObjective(prediction_type="sample", min_snr_gamma=5.0)
    weights = objective.weights(TIMES)
    assert weights.max() == 5.0 and (weights.diff() <= 0).all()
    assert DiffusionObjective(min_snr_gamma=None).weights(TIMES).tolist() == [1.0] * len(TIMES)


@pytest.mark.parametrize(("value_range", "expected"), [((-1.0, 1.0), [-1.0, 0.0, 1.0]), ((0.0, 1.0), [0.0, 0.5, 1.0])])
def test_intensities_are_scaled_to_the_values_of_the_network(
    value_range: tuple[float, float], expected: list[float]
) -> None:
    objective = DiffusionObjective(value_range=value_range)
    assert objective.scaled(torch.tensor([0.0, 0.5, 1.0])).tolist() == expected


def test_a_perfect_network_samples_the_clean_image() -> None:
    """The scheduler of the objective removes the noise that the objective added."""
    objective = DiffusionObjective()
    scheduler = objective.scheduler
    scheduler.set_timesteps(20)
    start = scheduler.timesteps[0].expand(8)
    sample = objective.noisy(CLEAN, NOISE, start)
    for time in scheduler.timesteps:
        kept = scheduler.alphas_cumprod[time]
        noise = (sample - kept.sqrt() * CLEAN) / (1 - kept).sqrt()
        sample = scheduler.step(objective.target(CLEAN, noise, time.expand(8)), time, sample).prev_sample
    torch.testing.assert_close(sample, CLEAN, atol=1e-3, rtol=0)
