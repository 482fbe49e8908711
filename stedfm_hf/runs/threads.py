"""Default for how OpenMP threads wait; torch-free, because OpenMP reads its settings when torch is imported."""

from __future__ import annotations

import os

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables by which a user decides how threads wait."""


def wait_passively() -> None:
    """Let the waiting OpenMP threads of this process and its children sleep, unless the user has decided otherwise.

    By default they spin, and take the processor from threads that have work when other programs run. For entry points
    only, before torch is imported: a library leaves the environment alone.

    Example:
        >>> wait_passively()
        >>> import torch
    """
    if not any(name in os.environ for name in _SETTINGS):
        # OMP_WAIT_POLICY for libgomp (Linux), KMP_BLOCKTIME for the runtimes of LLVM (macOS) and Intel (Windows).
        os.environ.update(OMP_WAIT_POLICY="passive", KMP_BLOCKTIME="0")
