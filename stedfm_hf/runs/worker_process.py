"""What a worker process knows about itself: the device that it computes on, and its number."""

from __future__ import annotations

_device: str | None = None
_number: int | None = None


def use_device(device: str) -> None:
    """Set the device of this process, which replaces that of its caller."""
    global _device
    _device = device


def use_number(number: int) -> None:
    """Set the number of this worker among those of a cluster."""
    global _number
    _number = number


def device_or(device: str) -> str:
    """Return the device of this process, or the given one if none was set.

    Example:
        >>> device_or("cpu")
        'cpu'
    """
    return _device or device


def worker_number() -> int | None:
    """Return the number of this worker; None outside a cluster."""
    return _number
