"""Dask clusters: processes of this machine, a running scheduler, or jobs of a batch system (extra `cluster`)."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.executors import Workers
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.wording import nearest

T = TypeVar("T")
ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d+")
LOCAL = re.compile(r"local:([1-9]\d*)")
BATCH_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "moab": "MoabCluster",
}
"""Classes of dask-jobqueue by the name of the batch system in the YAML file."""
TIMEOUT = 20
"""Time in which a scheduler must answer, in seconds."""
NO_PROFILE = "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False"
"""Setting of workers: their profiler looks at the stack 100 times per second, which made the work of
`embed` 12 and 24 % slower."""
_COUNTED_FOR = 1.0  # seconds for which the number of workers is not asked again


def check_cluster(cluster: str) -> None:
    """Refuse a text that does not name a cluster.

    Raises:
        UserError: If it is neither `local:N` nor an address nor a YAML file that describes jobs.

    Example:
        >>> check_cluster("local:4")
    """
    if LOCAL.fullmatch(cluster) or ADDRESS.fullmatch(cluster):
        return
    if not cluster.endswith((".yaml", ".yml")):
        raise UserError(f"cluster {cluster!r} is unknown; give local:4, tcp://HOST:8786 or a file such as slurm.yaml")
    if not Path(cluster).is_file():
        raise UserError(f"cluster {cluster}: no such file; check the path")
    _read_jobs(Path(cluster))


@contextmanager
def open_cluster(cluster: str | None) -> Iterator[Workers | None]:
    """Open a Dask cluster, and end what was started for it.

    A command opens it before its output, so that a scheduler that cannot be reached leaves no output, and before it
    loads a model: its workers start meanwhile.

    Args:
        cluster: `local:N` starts N processes on this machine; `tcp://HOST:PORT` uses a running scheduler; a YAML file
            names a batch system and the resources of its jobs (see docs/how-to/run-on-a-cluster.md). None opens none.

    Yields:
        Workers for `open_workers`, or None.

    Raises:
        UserError: If the extra is missing, the file is wrong, or the scheduler cannot be reached.

    Example:
        >>> with open_cluster(None) as opened:
        ...     opened is None
        True
    """
    if cluster is None:
        yield None
        return
    check_cluster(cluster)
    try:
        import dask
        import distributed
    except ImportError as error:
        raise UserError('a cluster needs Dask; install it with pip install "stedfm-hf[cluster]"') from error
    # What matters of its messages is reported here in one sentence.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    local = LOCAL.fullmatch(cluster)
    if ADDRESS.fullmatch(cluster):
        started: Any = None
        address: Any = cluster
    elif local:
        # Not only while the cluster is made: its workers start later, because only `scale` does not wait for them.
        dask.config.set({"distributed.worker.profile.enabled": False})
        started = address = distributed.LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            memory_limit=1 / int(local[1]),
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
        started.scale(int(local[1]))
    else:
        started = address = _start_jobs(Path(cluster), _read_jobs(Path(cluster)))
    try:
        try:
            client = distributed.Client(address, timeout=TIMEOUT)
        except (OSError, TimeoutError) as error:
            raise UserError(
                f"cluster {cluster}: no scheduler answers there ({error}); start one with `dask scheduler`"
            ) from error
        with client:
            workers = DaskWorkers(client, cluster)
            if client.dashboard_link:
                print_note(f"cluster {cluster}: dashboard {client.dashboard_link}")
            if local is None and not client.nthreads():
                print_note(f"cluster {cluster}: no worker yet; the work begins with the first one")
            try:
                yield workers
            finally:
                workers.shutdown()
    finally:
        if started is not None:
            started.close()


class DaskWorkers(Workers):
    """Executor on a Dask cluster, to which workers may be added at any time.

    The function of the calls travels to each worker once, and only the arguments with each call.

    Args:
        client: Client of the cluster.
        name: Name of the cluster in messages.
    """

    advice = "with more memory for each worker"

    def __init__(self, client: Any, name: str) -> None:
        from distributed.scheduler import KilledWorker

        from stedfm_hf.runs.dask_worker import WorkerDiskFull

        self.lost = (KilledWorker, WorkerDiskFull)
        self.ended = f"the cluster {name} has ended; run the same command again to resume"
        self._client, self._full = client, set[str]()
        self._executor = client.get_executor(pure=False)
        self._counted, self._count = 0.0, 1
        self._function: Callable[..., Any] | None = None
        self._shared = ""
        self._version = metadata.version("stedfm-hf")

    @property
    def count(self) -> int:
        """Number of workers now, at least one: calls wait for the first."""
        if time.monotonic() - self._counted > _COUNTED_FOR:
            with suppress(OSError, TimeoutError):
                self._count = max(1, len(self._client.nthreads()))
            self._counted = time.monotonic()
        return self._count

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submit a call."""
        from stedfm_hf.runs.dask_worker import call_shared

        if fn is not self._function:
            self._share(fn)
        if self._full:
            kwargs["workers"] = self._with_space()
        future: Future[T] = self._executor.submit(
            call_shared, self._shared, os.getcwd(), self._version, *args, **kwargs
        )
        return future

    def exclude(self, error: BaseException) -> None:
        """Make the next calls on workers whose disk is not full."""
        from stedfm_hf.runs.dask_worker import WorkerDiskFull

        if isinstance(error, WorkerDiskFull):
            self._full.add(error.address)
            if not self._with_space():
                raise OSError(errno.ENOSPC, "No space left on device") from error
            print_note(f"{error}; other workers go on")

    def _with_space(self) -> list[str]:
        return sorted(set(self._client.nthreads()) - self._full)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Remove the function from the workers."""
        if self._function is not None and self._client.status == "running":
            with suppress(OSError, ValueError):  # of a worker that dies, and of a scheduler that was restarted
                self._client.unregister_worker_plugin(self._shared)
        self._function = None

    def _share(self, function: Callable[..., Any]) -> None:
        """Send a function to all workers, in place of the last one."""
        from stedfm_hf.runs.dask_worker import SharedFunction

        self.shutdown()
        self._function, self._shared = function, f"stedfm-{uuid4().hex}"
        with suppress(OSError):  # of a worker that dies: its successor gets the function when it starts
            self._client.register_plugin(SharedFunction(function), self._shared)


@dataclass(frozen=True)
class _Jobs:
    """Jobs of a batch system, as a YAML file describes them."""

    system: str
    number: int
    options: dict[str, Any]


def _read_jobs(path: Path) -> _Jobs:
    """Read the description of jobs.

    Raises:
        UserError: If the file is wrong.
    """
    from stedfm_hf.runs.yaml_text import load_yaml

    try:
        given = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cluster {path}: cannot be read ({error})") from error
    except UserError as error:
        raise UserError(f"cluster {path}: {error}") from error
    if not isinstance(given, Mapping) or not {"system", "jobs"} <= set(given):
        raise UserError(f"cluster {path}: needs the keys `system` (such as slurm) and `jobs` (their number)")
    options = dict(given)
    system, jobs = str(options.pop("system")), options.pop("jobs")
    if system not in BATCH_SYSTEMS:
        raise UserError(
            f"cluster {path}: the system {system!r} is unknown"
            f"{nearest(system, BATCH_SYSTEMS) or '; choose ' + ', '.join(BATCH_SYSTEMS)}"
        )
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise UserError(f"cluster {path}: jobs is {jobs!r}; it must be a number of at least 1")
    return _Jobs(system, jobs, options)


def _start_jobs(path: Path, jobs: _Jobs) -> Any:
    """Start jobs of a batch system, whose number is kept: an ended job is replaced.

    Raises:
        UserError: If a key or its value is wrong.
    """
    with _kept_interrupt():
        import dask_jobqueue
        from dask_jobqueue.core import Job, JobQueueCluster

    kind = getattr(dask_jobqueue, BATCH_SYSTEMS[jobs.system])
    makers = (JobQueueCluster.__init__, Job.__init__, kind.job_cls.__init__)
    known = {name for maker in makers for name in inspect.signature(maker).parameters}
    for key in jobs.options:
        if key not in known:
            advice = nearest(str(key), sorted(known)) or "; the keys are those of dask-jobqueue"
            raise UserError(f"cluster {path}: the key {key!r} is unknown{advice}")
    prologue = jobs.options.get("job_script_prologue") or []
    if not isinstance(prologue, list):
        raise UserError(f"cluster {path}: job_script_prologue is {prologue!r}; it must be a list of lines")
    try:
        cluster = kind(**jobs.options | {"job_script_prologue": [*prologue, f"export {NO_PROFILE}"]})
    except (TypeError, ValueError) as error:
        raise UserError(f"cluster {path}: {' '.join(str(error).split())}") from error
    cluster.adapt(minimum_jobs=jobs.number, maximum_jobs=jobs.number)
    return cluster


@contextmanager
def _kept_interrupt() -> Iterator[None]:
    """Keep what Ctrl-C does: importing dask_jobqueue makes it end the program with exit status 0."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
