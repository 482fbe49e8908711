"""The moving average follows the weights, forgets the random ones soon, and can be used in place of the weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stedfm_hf.training.averaging import WeightAverage

CONTROL: Any = None


def step(average: WeightAverage, number: int) -> None:
    state: Any = SimpleNamespace(global_step=number)
    average.on_step_end(CONTROL, state, CONTROL)


def test_it_follows_the_weights() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = WeightAverage(network, 0.9)
    torch.nn.init.ones_(network.weight)
    for number in range(1, 4):
        step(average, number)
    assert float(average.weights["weight"]) == pytest.approx(1 - 0.9**3)


def test_a_ramp_forgets_the_random_weights() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    plain, ramp = WeightAverage(network, 0.999), WeightAverage(network, 0.999, ramp=True)
    torch.nn.init.ones_(network.weight)
    for number in range(1, 101):
        step(plain, number)
        step(ramp, number)
    assert float(plain.weights["weight"]) < 0.1 and float(ramp.weights["weight"]) > 0.999
    assert ramp.decay_at(10**6) == 0.999


def test_the_averaged_weights_take_the_place_of_the_weights_in_a_block(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    average = WeightAverage(network, 0.5)
    averaged = {name: value.clone() for name, value in average.weights.items()}
    torch.nn.init.ones_(network.weight)
    with average.applied():
        assert all(torch.equal(value, averaged[name]) for name, value in network.named_parameters())
    with pytest.raises(ZeroDivisionError), average.applied():
        1 / 0  # noqa: B018
    assert torch.equal(network.weight, torch.ones(2, 2))
    average.save(tmp_path)
    other = WeightAverage(torch.nn.Linear(2, 2), 0.5)
    other.load(tmp_path)
    assert all(torch.equal(value, averaged[name]) for name, value in other.weights.items())
