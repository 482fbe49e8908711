"""Devices that a command computes on: one, or all GPUs of this machine with a process for each."""

from __future__ import annotations


def devices_of(device: str, backend: str = "torch") -> list[str]:
    """Return the devices that an option names.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, or several separated by commas. `cuda`, and `auto` where there
            is a GPU, stand for all visible GPUs.
        backend: Library that computes the model; only torch uses GPUs.

    Example:
        >>> devices_of("cpu"), devices_of("cuda:0,cuda:1")
        (['cpu'], ['cuda:0', 'cuda:1'])
    """
    if device == "cuda" or (device == "auto" and backend == "torch"):
        import torch

        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or [device]
    return device.split(",")
