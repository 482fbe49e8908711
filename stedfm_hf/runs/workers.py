"""Choose the workers of a command: an open Dask cluster, processes of this machine, or this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from stedfm_hf.runs.executors import Workers, open_processes


def open_workers(
    cluster: Workers | None = None, *, processes: int = 1, devices: Sequence[str] = ()
) -> AbstractContextManager[Workers]:
    """Open the workers of a command.

    Args:
        cluster: Open Dask cluster (`open_cluster`), which stays open; None uses this machine.
        processes: Number of processes on this machine; with one, calls are made in this process.
        devices: Devices of this machine; with more than one, each gets a process.

    Returns:
        Context that yields workers for `run_items`.

    Example:
        >>> with open_workers() as workers:
        ...     workers.count
        1
    """
    if cluster is not None:
        return nullcontext(cluster)
    return open_processes(max(processes, len(devices)), devices if len(devices) > 1 else ())
