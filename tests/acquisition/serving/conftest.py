"""One server for the tests of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient  # noqa: E402 (after the skip)

from stedfm_hf.acquisition import Client  # noqa: E402
from tests.acquisition.serving.serving_world import serving, write_model  # noqa: E402


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STEDFM_TOKEN", "STEDFM_TOKENS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return write_model(tmp_path_factory.mktemp("serve") / "model")


@pytest.fixture(scope="package")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server without tokens, with a shared folder."""
    root = tmp_path_factory.mktemp("server")
    (root / "share").mkdir()
    with serving(model, root / "state", share=root / "share") as http:
        yield http


@pytest.fixture
def client(server: TestClient) -> Client:
    """A new client of the server."""
    return Client(http=server)
