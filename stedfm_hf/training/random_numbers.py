"""Random numbers that are a function of (seed, epoch, sample) alone, on the device of the data.

A generator has a state, so what it gives depends on what was drawn before, on the rank and on the batch. Here every
number is the hash of where it is used: any step can be repeated, two samples never share a mask, and it does not
matter how many ranks share a batch. Whole numbers only, so every device gives the same.
"""

from __future__ import annotations

import torch

_LOW = 0xFFFFFFFF


def _mix(x: torch.Tensor) -> torch.Tensor:
    """A bijection of 32-bit numbers, held in int64, in which every bit of the input changes half of the output."""
    x = x & _LOW
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LOW
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LOW
    return x ^ (x >> 16)


def sample_keys(seed: int, epoch: int, index: torch.Tensor) -> torch.Tensor:
    """Two 32-bit keys of every sample, in an epoch.

    Args:
        seed: of the run, 0 or above.
        epoch: number of the epoch, 0 or above.
        index: numbers of the samples, (B,) int64.

    Returns:
        (B, 2) int64, on the device of `index`.
    """
    keys = []
    for start in (0x9E3779B9, 0x7F4A7C15):
        key = torch.full_like(index, start)
        for word in (seed & _LOW, seed >> 32, epoch, index & _LOW, index >> 32):
            key = _mix(key * 31 + word)
        keys.append(key)
    return torch.stack(keys, dim=1)


def random_integers(keys: torch.Tensor, count: int, *, purpose: int) -> torch.Tensor:
    """Random 32-bit numbers of every sample.

    Args:
        keys: of `sample_keys`, (B, 2).
        count: numbers of each sample.
        purpose: what they are for: different purposes have numbers of their own.

    Returns:
        (B, count) int64, from 0 to 2**32 - 1.
    """
    place = torch.arange(count, device=keys.device, dtype=torch.int64) * 0x85EBCA6B + purpose * 0xC2B2AE35
    return _mix(_mix(keys[:, :1] + place) ^ _mix(keys[:, 1:] - place))


def random_uniform(keys: torch.Tensor, count: int, *, purpose: int) -> torch.Tensor:
    """The same as numbers from 0 to below 1, (B, count) float32."""
    # 24 bits: what a float32 can tell apart.
    return (random_integers(keys, count, purpose=purpose) >> 8).float() / 2**24


def random_ranks(keys: torch.Tensor, count: int, *, purpose: int) -> torch.Tensor:
    """Random numbers no two of which are equal in a sample, (B, count) int64: their order is a random permutation."""
    # A tie would be broken in another way by another device.
    return random_integers(keys, count, purpose=purpose) * count + torch.arange(count, device=keys.device)
