"""Share an effective batch among processes and accumulated batches: it stays the same on any machine."""

from __future__ import annotations

import os
from itertools import count

from stedfm_hf.runs import UserError


def world_size() -> int:
    """Return the number of processes that a launcher (torchrun, accelerate) started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def split_batch(
    effective: int,
    world_size: int,
    *,
    limit: int,
    per_device: int | None = None,
    accumulation: int | None = None,
) -> tuple[int, int]:
    """Find the samples in one forward pass of a process, and its forward passes in an optimiser step.

    Args:
        effective: Number of samples in an optimiser step, of all processes together.
        world_size: Number of processes.
        limit: Largest number of samples in one forward pass, where neither of the next two is given.
        per_device: Number of samples in one forward pass; None finds as many as `limit` allows.
        accumulation: Number of forward passes in a step; None finds it.

    Returns:
        Samples in one forward pass, and forward passes. Their product with `world_size` is `effective`.

    Raises:
        UserError: It cannot be done; names the nearest values with which it can.

    Example:
        >>> split_batch(1024, 2, limit=256)
        (256, 2)
    """
    if min(number for number in (effective, world_size, limit, per_device, accumulation) if number is not None) < 1:
        raise UserError(
            f"effective_batch_size {effective}, per_device_train_batch_size {per_device}, gradient_accumulation_steps "
            f"{accumulation} and the bound {limit} must be 1 or more"
        )
    found = _split(effective, world_size, limit, per_device, accumulation)
    if found is None:
        near = _nearest(effective, world_size, limit, per_device, accumulation)
        size = f"{per_device} samples" if per_device else f"at most {limit} samples"
        times = "" if accumulation is None else f", {accumulation} times"
        raise UserError(
            f"effective_batch_size {effective} cannot be split evenly over {world_size} process(es) of {size}{times}"
            f"; the nearest that can: {' or '.join(map(str, near))}"
        )
    return found


def _split(
    effective: int, world_size: int, limit: int, per_device: int | None, accumulation: int | None
) -> tuple[int, int] | None:
    share, rest = divmod(effective, world_size)
    if rest or not share:
        return None
    if per_device is None and accumulation is not None:
        per_device = share // accumulation
    elif per_device is None:
        fullest = min(share, limit)
        per_device = next(size for size in range(fullest, 0, -1) if share % size == 0)
        if 4 * per_device < fullest:  # a prime number in crumbs would take for ever, and nobody would know why
            return None
    if not per_device or share % per_device:
        return None
    times = share // per_device
    return (per_device, times) if accumulation in (None, times) else None


def _nearest(
    effective: int, world_size: int, limit: int, per_device: int | None, accumulation: int | None
) -> tuple[int, ...]:
    """The nearest effective batches below (if there is one) and above that can be shared out."""
    if per_device is not None and accumulation is not None:
        return (world_size * per_device * accumulation,)

    def works(value: int) -> bool:
        return _split(value, world_size, limit, per_device, accumulation) is not None

    below = next((value for value in range(effective - 1, 0, -1) if works(value)), None)
    above = next(value for value in count(effective + 1) if works(value))
    return (above,) if below is None else (below, above)
