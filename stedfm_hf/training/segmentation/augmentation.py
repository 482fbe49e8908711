"""What is done to crops and their masks alike, by (seed, epoch, sample): turns, and changes of intensity.

`sound` is ours. `legacy` is the reference's with its true ranges: each of five changes with a probability of one half,
a factor and an exponent drawn from lognormal distributions and then cut to [0, 1], so that the factor only darkens and
the exponent only brightens (reference protocol).
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from stedfm_hf.training.counters import draw, draw_uniform
from stedfm_hf.training.finetuning.augmentation import INTENSITY, change_intensities, choose_turns
from stedfm_hf.training.preparation import TURN, turn

Augmentation = Literal["sound", "legacy"]

FACTOR, EXPONENT = (0.01, 0.1), (0.005, math.sqrt(0.005))
"""Mean and standard deviation of the logarithms, of the reference."""


def augment(
    images: torch.Tensor, labels: torch.Tensor, region: torch.Tensor, keys: torch.Tensor, kind: Augmentation
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turns images with their labels and regions, and changes the intensities of the images.

    Args:
        images: (B, C, S, S) in [0, 1].
        labels: (B, S, S) of a single label, else (B, L, S, S).
        region: (B, S, S) bool.
        keys: of the samples, (B, 2), on the same device.
        kind: `sound` or `legacy`.

    Returns:
        All three, of the same shapes.
    """
    turns = _legacy_turns(keys) if kind == "legacy" else choose_turns(keys)
    planes = labels[:, None] if labels.ndim == 3 else labels
    images, planes, regions = (turn(each, turns) for each in (images, planes, region[:, None]))
    images = _legacy_intensities(images, keys) if kind == "legacy" else change_intensities(images, keys)
    return images, planes[:, 0] if labels.ndim == 3 else planes, regions[:, 0]


def _legacy_turns(keys: torch.Tensor) -> torch.Tensor:
    """Quarter turns (1 to 3), then a reflection of the columns, then one of the rows, each or not, as one of eight."""
    numbers = draw(keys, 4, purpose=TURN)
    quarters = (1 + numbers[:, 1] % 3) * (numbers[:, 0] % 2)
    columns, rows = numbers[:, 2] % 2, numbers[:, 3] % 2
    # Both reflections together are a half turn; one of the rows is one of the columns and a half turn.
    quarters = (quarters + 2 * rows) % 4
    mirrored = columns ^ rows
    return _TURN_OF.to(keys.device)[mirrored, quarters]


def _find_turns() -> torch.Tensor:
    """Number that `turn` has for quarter turns (second index) and then, or not (first), a reflection of columns."""
    image = torch.arange(4.0).view(1, 1, 2, 2)
    known = [turn(image, torch.tensor([number])) for number in range(8)]
    found = torch.zeros(2, 4, dtype=torch.int64)
    for mirrored in range(2):
        for quarters in range(4):
            wanted = torch.rot90(image, quarters, dims=(2, 3))
            wanted = wanted.flip(3) if mirrored else wanted
            found[mirrored, quarters] = next(number for number in range(8) if torch.equal(known[number], wanted))
    return found


_TURN_OF = _find_turns()


def _legacy_intensities(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    chosen = draw_uniform(keys, 6, purpose=INTENSITY)
    factor = torch.where(chosen[:, 0] < 0.5, _lognormal(chosen[:, 1], chosen[:, 2], *FACTOR).clamp(0, 1), 1.0)
    exponent = _lognormal(chosen[:, 4], chosen[:, 5], *EXPONENT).clamp(0, 1)
    exponent = torch.where(chosen[:, 3] < 0.5, exponent, 1.0)
    shape = (-1, 1, 1, 1)
    return ((images * factor.view(shape)).clamp(0, 1) ** exponent.view(shape)).clamp(0, 1)


def _lognormal(first: torch.Tensor, second: torch.Tensor, mean: float, spread: float) -> torch.Tensor:
    """Of uniform numbers in [0, 1), by the method of Box and Muller."""
    normal = (-2 * torch.log1p(-first)).sqrt() * torch.cos(2 * math.pi * second)
    return (mean + spread * normal).exp()
