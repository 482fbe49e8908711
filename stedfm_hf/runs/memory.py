"""Keep memory that was freed for the next computation, in place of giving it back to the system each time."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_TRIM, _SEPARATE = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
_MIB = 2**20


def keep_freed_memory() -> None:
    """Keep up to 64 MiB of freed memory in this process, and reuse it for blocks of up to 32 MiB.

    A network frees and takes the same large blocks for every batch. By default, the C library of Linux gives many of
    them back to the system, and the workers of Dask give back all: the system then has to clear every page again (see
    docs/benchmarks/cluster.md). Without effect where the C library is not that of GNU. Entry points and workers call
    this; importing the package does not.

    Example:
        >>> keep_freed_memory()
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_SEPARATE, 32 * _MIB)  # the most that glibc accepts
            mallopt(_TRIM, 64 * _MIB)
