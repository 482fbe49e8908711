"""Counter-based random numbers: a function of (seed, epoch, sample), without the state of a generator.

Every number is a hash of the sample and of the purpose it is used for. It depends neither on the order of the calls
nor on the number of processes, so any step can be repeated. The hash uses integers, so all devices agree.
"""

from __future__ import annotations

import torch

_LOW = 0xFFFFFFFF


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Hash 32-bit numbers, stored as int64, one to one."""
    x = x & _LOW
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LOW
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LOW
    return x ^ (x >> 16)


def sample_keys(seed: int, epoch: int, index: torch.Tensor) -> torch.Tensor:
    """Return two 32-bit keys for every sample of an epoch.

    Args:
        seed: Random seed of the run, at least 0.
        epoch: Index of the epoch, at least 0.
        index: Indices of the samples, (B,) int64.

    Returns:
        Keys, (B, 2) int64, on the device of `index`.

    Example:
        >>> sample_keys(0, 0, torch.arange(3)).shape
        torch.Size([3, 2])
    """
    keys = []
    for start in (0x9E3779B9, 0x7F4A7C15):
        key = torch.full_like(index, start)
        for word in (seed & _LOW, seed >> 32, epoch, index & _LOW, index >> 32):
            key = _mix(key * 31 + word)
        keys.append(key)
    return torch.stack(keys, dim=1)


def random_integers(keys: torch.Tensor, count: int, *, purpose: int) -> torch.Tensor:
    """Return random 32-bit integers for every sample.

    Args:
        keys: Keys of the samples from `sample_keys`, (B, 2).
        count: Number of integers per sample.
        purpose: Purpose of the numbers; different purposes have independent numbers.

    Returns:
        Integers in [0, 2**32), (B, count) int64.

    Example:
        >>> keys = sample_keys(0, 0, torch.arange(3))
        >>> torch.equal(random_integers(keys, 2, purpose=1)[1:], random_integers(keys[1:], 2, purpose=1))
        True
    """
    counter = torch.arange(count, device=keys.device, dtype=torch.int64) * 0x85EBCA6B + purpose * 0xC2B2AE35
    return _mix(_mix(keys[:, :1] + counter) ^ _mix(keys[:, 1:] - counter))


def random_uniform(keys: torch.Tensor, count: int, *, purpose: int) -> torch.Tensor:
    """Return uniform random numbers in [0, 1) for every sample, (B, count) float32.

    Args:
        keys: Keys of the samples from `sample_keys`, (B, 2).
        count: Number of values per sample.
        purpose: Purpose of the numbers.
    """
    # 24 bits, the precision of float32.
    return (random_integers(keys, count, purpose=purpose) >> 8).float() / 2**24


def random_ranks(keys: torch.Tensor, count: int, *, purpose: int) -> torch.Tensor:
    """Return distinct random integers for every sample, (B, count) int64; sorting them gives a random permutation.

    Args:
        keys: Keys of the samples from `sample_keys`, (B, 2).
        count: Number of integers per sample.
        purpose: Purpose of the numbers.
    """
    # Distinct, because devices break ties differently.
    return random_integers(keys, count, purpose=purpose) * count + torch.arange(count, device=keys.device)


def random_normal(keys: torch.Tensor, count: int, *, purpose: int) -> torch.Tensor:
    """Return normal random numbers for every sample, (B, count) float32, by the Box-Muller transform.

    Args:
        keys: Keys of the samples from `sample_keys`, (B, 2).
        count: Number of values per sample.
        purpose: Purpose of the numbers.

    Example:
        >>> values = random_normal(sample_keys(0, 0, torch.arange(100)), 99, purpose=1)
        >>> values.shape, bool(values.mean().abs() < 0.05), bool((values.std() - 1.0).abs() < 0.05)
        (torch.Size([100, 99]), True, True)
    """
    pairs = (count + 1) // 2
    first, second = random_uniform(keys, 2 * pairs, purpose=purpose).double().split(pairs, dim=1)
    # In float64, because rounding to float32 is then the same on nearly all devices; 1 - u is never 0.
    radius, angle = (-2.0 * torch.log1p(-first)).sqrt(), 2.0 * torch.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count].float()
