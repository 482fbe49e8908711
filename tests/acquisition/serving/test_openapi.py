"""No request makes the server fail: those of its OpenAPI description, and files with random changes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from stedfm_hf.acquisition import Client
from tests.acquisition.serving.serving_world import field, mask, npy, tiff

schemathesis = pytest.importorskip("schemathesis")

HOST = {"Host": "127.0.0.1"}
FILES = [npy(field(0)), tiff(field(0)), tiff(field(0), compression="zlib"), tiff(field(0), tile=(32, 32))]


@pytest.fixture(scope="package")
def known(server: TestClient) -> tuple[str, str]:
    """The token of a client, and the id of its finder."""
    client = Client(http=server)
    finder = client.create_finder(field(0), mask=mask(0), rotations=False)
    return client.token, finder.id


def test_described_requests_never_fail(server: TestClient, known: tuple[str, str]) -> None:
    token, finder = known
    schema = schemathesis.openapi.from_asgi("/openapi.json", server.app, headers=HOST)
    operations = [found.ok() for found in schema.get_all_operations()]
    statuses: dict[str, set[int]] = defaultdict(set)

    def never_fails(case: Any) -> None:
        if "finder" in (case.query or {}):
            case.query["finder"] = finder
        response = case.call(headers={"Authorization": f"Bearer {token}", **HOST})
        statuses[case.operation.label].add(response.status_code)
        assert response.status_code < 500, (case.operation.label, response.text)
        if response.status_code >= 400:
            assert list(response.json()) == ["error"]

    for operation in operations:
        how = settings(max_examples=20, suppress_health_check=list(HealthCheck))
        how(given(case=operation.as_strategy())(never_fails))()
    assert len(statuses) == len(operations) == 12 and statuses["GET /health"] == {200}


@given(
    file=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=4),
    end=st.integers(0, 12_000),
)
@settings(max_examples=300)
def test_changed_files_never_fail(
    file: bytes, changes: list[tuple[int, bytes]], end: int, server: TestClient, known: tuple[str, str]
) -> None:
    token, finder = known
    body = bytearray(file)
    for at, content in changes:
        body[at : at + len(content)] = content
    response = server.post(
        "/regions",
        params={"finder": finder, "count": 2},
        content=bytes(body[:end]),
        headers={"Authorization": f"Bearer {token}"},
    )
    assert response.status_code in (200, 400, 413, 415)


@pytest.mark.parametrize("shape", [(1, 1), (1, 80), (3, 3), (33, 7)])
@pytest.mark.parametrize("value", [0, 65535, 1e300])
def test_small_and_constant_images_have_finite_scores(
    shape: tuple[int, int], value: float, server: TestClient, known: tuple[str, str]
) -> None:
    client = Client(http=server, token=known[0])
    assert np.isfinite(client.score(np.full(shape, value), known[1]).values).all()
    assert len(client.regions(np.full(shape, value), known[1], min_score=-1, count=1)) == 1
