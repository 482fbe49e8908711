"""What the workers of a Dask cluster run: functions that each of them gets once (extra `cluster`)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from functools import cached_property
from importlib import metadata
from typing import Any

from distributed import WorkerPlugin, get_worker
from distributed.protocol.pickle import dumps, loads

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.memory import keep_freed_memory
from stedfm_hf.runs.worker_process import use_number


class SharedFunction(WorkerPlugin):
    """Function of a command, which each worker gets once, also one that joins later.

    Args:
        function: Function that another process can unpickle. A worker does so in its first call, when it is in the
            folder of the caller and knows its number.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._content = dumps(function)

    def setup(self, worker: Any) -> None:
        """Prepare a worker."""
        keep_freed_memory()

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The function."""
        function: Callable[..., Any] = loads(self._content)
        return function


class WorkerDiskFull(Exception):
    """The disk of a worker is full.

    Args:
        address: Address of the worker.
    """

    def __init__(self, address: str) -> None:
        super().__init__(f"the disk of the worker {address} is full")
        self.address = address

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerDiskFull, (self.address,)


def call_shared(name: str, folder: str, version: str, *args: Any, **kwargs: Any) -> Any:
    """Call a shared function on this worker.

    Args:
        name: Name of the plugin `SharedFunction`.
        folder: Working folder of the caller.
        version: Version of the caller.
        *args: Arguments of the function.
        **kwargs: Keyword arguments of the function.

    Raises:
        UserError: If this worker has another version, or cannot open the folder.
        WorkerDiskFull: If the disk is full.
    """
    if (found := metadata.version("stedfm-hf")) != version:
        raise UserError(f"a worker has stedfm-hf {found}, and this is {version}; install the same version")
    try:
        if os.getcwd() != folder:
            os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"a worker cannot open the folder {folder}; start the command in a folder of the shared storage"
        ) from error
    worker: Any = get_worker()
    use_number(_number_of(str(worker.name)))
    try:
        return worker.plugins[name].function(*args, **kwargs)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkerDiskFull(worker.address) from error
        raise


def _number_of(name: str) -> int:
    """Return the number at the end of the name of a worker, by which the workers of a machine share its GPUs."""
    found = re.search(r"\d+$", name)
    return int(found[0]) if found else 0
