"""Default for how OpenMP threads wait. Imports no torch: OpenMP reads its settings when torch is imported."""

from __future__ import annotations

import os

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables that set how threads wait; if one is set, nothing is changed."""


def limit_spinning() -> None:
    """Limit how long waiting OpenMP threads spin in this process and its children, unless the environment sets it.

    By default they spin for long, which slows down every program on a busy machine. Only entry points call this,
    before torch is imported; importing the package does not change the environment.

    Example:
        >>> limit_spinning()
        >>> import torch
    """
    if not any(name in os.environ for name in _SETTINGS):
        # For libgomp (Linux) a short spin: none at all (OMP_WAIT_POLICY=passive) costs 5 % on an idle machine.
        # KMP_BLOCKTIME is for the runtimes of LLVM (macOS) and Intel (Windows), in milliseconds.
        os.environ.update(GOMP_SPINCOUNT="10000", KMP_BLOCKTIME="0")
