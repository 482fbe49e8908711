"""Division of an effective batch among processes and accumulated batches."""

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
    """Divide an effective batch among processes and accumulated batches.

    Args:
        effective: Number of samples in an optimiser step, of all processes together.
        world_size: Number of processes.
        limit: Largest number of samples in one forward pass, if neither of the next two is given.
        per_device: Number of samples in one forward pass; None for the largest possible.
        accumulation: Number of forward passes in an optimiser step; None to compute it.

    Returns:
        Number of samples in one forward pass of a process, and number of forward passes in an optimiser step. Their
        product with `world_size` is `effective`.

    Raises:
        UserError: The batch cannot be divided evenly; the message names the nearest possible batch sizes.

    Example:
        >>> split_batch(1024, 2, limit=256)
        (256, 2)
    """
    if min(number for number in (effective, world_size, limit, per_device, accumulation) if number is not None) < 1:
        raise UserError(
            f"--effective-batch-size {effective}, --per-device-train-batch-size {per_device}, "
            f"--gradient-accumulation-steps {accumulation} and --max-per-device-batch {limit} must be at least 1"
        )
    found = _split(effective, world_size, limit, per_device, accumulation)
    if found is None:
        near = _nearest(effective, world_size, limit, per_device, accumulation)
        size = f"{per_device} samples" if per_device else f"at most {limit} samples"
        times = "" if accumulation is None else f", {accumulation} times"
        processes = "1 process" if world_size == 1 else f"{world_size} processes"
        raise UserError(
            f"--effective-batch-size {effective} cannot be divided evenly among {processes} of {size}{times}"
            f"; the nearest that can: {' or '.join(map(str, near))}"
        )
    return found


def _split(
    effective: int, world_size: int, limit: int, per_device: int | None, accumulation: int | None
) -> tuple[int, int] | None:
    """Return the batch size of a forward pass and the number of passes per step; None if the division is not even.

    If `per_device` and `accumulation` are None, the batch size is the largest divisor up to `limit`, unless that
    is less than a quarter of the largest size.
    """
    per_process, rest = divmod(effective, world_size)
    if rest or not per_process:
        return None
    if per_device is None and accumulation is not None:
        per_device = per_process // accumulation
    elif per_device is None:
        largest = min(per_process, limit)
        per_device = next(size for size in range(largest, 0, -1) if per_process % size == 0)
        if 4 * per_device < largest:  # tiny batches, for example of a prime number, would be very slow
            return None
    if not per_device or per_process % per_device:
        return None
    passes = per_process // per_device
    return (per_device, passes) if accumulation in (None, passes) else None


def _nearest(
    effective: int, world_size: int, limit: int, per_device: int | None, accumulation: int | None
) -> tuple[int, ...]:
    """Return the nearest effective batch sizes below (if any) and above that can be divided."""
    if per_device is not None and accumulation is not None:
        return (world_size * per_device * accumulation,)

    def works(value: int) -> bool:
        return _split(value, world_size, limit, per_device, accumulation) is not None

    below = next((value for value in range(effective - 1, 0, -1) if works(value)), None)
    above = next(value for value in count(effective + 1) if works(value))
    return (above,) if below is None else (below, above)
