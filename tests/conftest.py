"""What holds for every test: no network, no cache of the user's, one thread, the same examples every time."""

from __future__ import annotations

import atexit
import gc
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from stedfm_hf.runs.threads import limit_spinning

# Before anything imports torch, matplotlib or a library of Hugging Face: they read these once. Children inherit them.
# A cache of its own for every process keeps parallel workers from writing each other's remote code.
_CACHE = tempfile.mkdtemp(prefix="stedfm-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ.update(
    HF_HOME=_CACHE,
    STEDFM_CACHE=os.path.join(_CACHE, "stedfm"),
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    # The store of large files that the Hub uses today has no place on the server of tests/hub_server.py.
    HF_HUB_DISABLE_XET="1",
    MPLBACKEND="Agg",
)
for _name in ("HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "STEDFM_DEBUG"):
    os.environ.pop(_name, None)
limit_spinning()
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_CHECKS_LEFT_OUT = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
for _profile, _examples in {"quick": 10, "full": 25}.items():
    settings.register_profile(
        _profile, deadline=None, max_examples=_examples, derandomize=True, suppress_health_check=_CHECKS_LEFT_OUT
    )
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

from tests.figures import plotted_figures, sketch_figures  # noqa: E402 (after the environment is set)
from tests.object_store import ACCESS_KEY, SECRET_KEY, Bucket, ObjectServer, serve_objects  # noqa: E402

sketch_figures()


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later collection of garbage, which each training asks for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sketch figures, except in tests marked `figures`."""
    with plotted_figures() if request.node.get_closest_marker("figures") else nullcontext():
        yield


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """Start an S3 server on this machine."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with serve_objects() as server:
        yield server


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """Make an empty bucket, and set the environment for it; attempts are repeated without waiting."""
    import s3fs

    values = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": "us-east-1"}
    files = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    for name, value in {**values, **files, "AWS_ENDPOINT_URL": object_server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("stedfm_hf.runs.storage.PAUSE", 0.0)
    s3fs.S3FileSystem.clear_instance_cache()  # a file system keeps the environment in which it was made
    system = s3fs.S3FileSystem(endpoint_url=object_server.direct, skip_instance_cache=True, use_listings_cache=False)
    name = f"bucket-{secrets.token_hex(4)}"
    system.mkdir(name)
    yield Bucket(name, object_server, system)
    object_server.cut_downloads = object_server.cut_uploads = 0
    object_server.check_credentials(False)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def memory() -> Iterator[str]:
    """Empty the file system `memory://`, and return its URL."""
    from fsspec.implementations.memory import MemoryFileSystem

    pytest.importorskip("upath")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield "memory://store"
    MemoryFileSystem.store.clear()


_LOOPBACK = ("127.", "::1", "localhost")
_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


class NetworkBlockedError(RuntimeError):
    """A test tried to reach another machine."""


def _refuse_other_machines(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if isinstance(name, str) and name and not name.startswith(_LOOPBACK):
        raise NetworkBlockedError(f"a test tried to reach {name}; tests run offline (mark it `network` if it must)")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    _refuse_other_machines(address[0] if isinstance(address, tuple) else "")
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    _refuse_other_machines(address[0] if isinstance(address, tuple) else "")
    return _connect_ex(self, address)


def _guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    _refuse_other_machines(host)
    return _getaddrinfo(host, *args, **kwargs)


@pytest.fixture(autouse=True)
def _network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test reach this machine only; tests marked `network` are skipped unless STEDFM_TEST_NETWORK is set."""
    if request.node.get_closest_marker("network") is None:
        monkeypatch.setattr(socket.socket, "connect", _guarded_connect)
        monkeypatch.setattr(socket.socket, "connect_ex", _guarded_connect_ex)
        monkeypatch.setattr(socket, "getaddrinfo", _guarded_getaddrinfo)
    elif "STEDFM_TEST_NETWORK" not in os.environ:
        pytest.skip("needs the internet; set STEDFM_TEST_NETWORK=1 to run it")
    yield


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Lets downloads reach this machine, without waiting between attempts; gives an empty cache folder."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    cache = tmp_path / "cache"
    monkeypatch.setenv("STEDFM_CACHE", str(cache))
    return cache
