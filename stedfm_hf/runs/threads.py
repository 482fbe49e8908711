"""Default for how OpenMP threads wait; torch-free, because OpenMP reads its settings when torch is imported."""

from __future__ import annotations

import os

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables by which a user decides how threads wait."""


def limit_spinning() -> None:
    """Let the waiting OpenMP threads of this process and its children sleep soon, unless the user decided otherwise.

    By default they spin, and take the processor from threads that have work when other programs run. For entry points
    only, before torch is imported: a library leaves the environment alone.

    Example:
        >>> limit_spinning()
        >>> import torch
    """
    if not any(name in os.environ for name in _SETTINGS):
        # For libgomp (Linux) a short spin: none at all (OMP_WAIT_POLICY=passive) costs 5 % on an idle machine.
        # KMP_BLOCKTIME is for the runtimes of LLVM (macOS) and Intel (Windows), in milliseconds.
        os.environ.update(GOMP_SPINCOUNT="10000", KMP_BLOCKTIME="0")
