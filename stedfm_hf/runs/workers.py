"""Open the workers that the options of a command name: this process, processes of this machine, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.executors import Workers, open_processes


def open_workers(
    cluster: str | None = None, *, processes: int = 1, devices: Sequence[str] = ()
) -> AbstractContextManager[Workers]:
    """Open the workers of a command.

    Args:
        cluster: Dask cluster (see `open_cluster`); None uses this machine.
        processes: Number of processes on this machine; with one, calls are made in this process.
        devices: Devices of this machine; with more than one, each gets a process.

    Returns:
        Context that yields workers for `run_items`, and ends them.

    Raises:
        UserError: If the cluster cannot be reached.

    Example:
        >>> with open_workers() as workers:
        ...     workers.count
        1
    """
    if cluster is not None:
        return open_cluster(cluster)
    return open_processes(max(processes, len(devices)), devices if len(devices) > 1 else ())
