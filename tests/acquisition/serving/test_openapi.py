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
    described = {
        f"{method.upper()} {path}": set(route["responses"])
        for path, methods in server.get("/openapi.json").json()["paths"].items()
        for method, route in methods.items()
    }
    statuses: dict[str, set[int]] = defaultdict(set)

    def never_fails(case: Any) -> None:
        if "finder" in (case.query or {}):
            case.query["finder"] = finder
        response = case.call(headers={"Authorization": f"Bearer {token}", **HOST})
        statuses[case.operation.label].add(response.status_code)
        assert str(response.status_code) in described[case.operation.label], (case.operation.label, response.text)
        if response.status_code >= 400:
            assert response.status_code < 500 and list(response.json()) == ["error"]

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


def test_everything_is_described(server: TestClient) -> None:
    openapi = server.get("/openapi.json").json()
    assert openapi["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    schemas = openapi["components"]["schemas"]
    assert "HTTPValidationError" not in schemas and set(schemas["ErrorAnswer"]["properties"]) == {"error"}
    for name, schema in schemas.items():
        assert all(each.get("description") for each in schema["properties"].values()), name
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            assert all(each.get("description") for each in route.get("parameters", ())), (method, path)
            assert {"400", "403", "413", "422"} <= set(route["responses"])
            is_open = path in ("/health", "/clients", "/process")
            assert bool(route.get("security")) != is_open and (("401" in route["responses"]) == (path != "/health"))
    page = server.get("/docs").text
    for text in ("click_radius_px", "min_scores", "stage_x_um", "Authorization: Bearer TOKEN", "Id of the finder."):
        assert text in page
    assert "`" not in page


def test_unknown_parameters_are_refused(server: TestClient, known: tuple[str, str]) -> None:
    headers = {"Authorization": f"Bearer {known[0]}"}
    params: dict[str, Any] = {"finder": known[1], "cuont": 2}
    response = server.post("/regions", params=params, content=npy(field(0)), headers=headers)
    assert response.status_code == 422 and "the parameter 'cuont' is unknown" in response.json()["error"]
    files = {"image": ("image", npy(field(0)))}
    response = server.post("/finders", data={"clicks": "[[4, 4]]", "methd": "x"}, files=files, headers=headers)
    assert response.status_code == 422 and "the field 'methd' is unknown" in response.json()["error"]


def test_a_stage_is_six_numbers(server: TestClient, known: tuple[str, str]) -> None:
    headers = {"Authorization": f"Bearer {known[0]}"}

    def stage_x(stage: Any) -> Any:
        params: dict[str, Any] = {"finder": known[1], "count": 1, "min_score": -1, "stage": stage}
        response = server.post("/regions", params=params, content=npy(field(0)), headers=headers).json()
        return response[0]["stage_x_um"] if isinstance(response, list) else response["error"]

    assert stage_x("0.02,0,1000,0,0.02,500") == stage_x(["0.02", 0, 1000, 0, "0.02", 500]) > 1000
    assert "stage: is not a matrix of 2 x 3; send six numbers" in stage_x("1,2,3")
    assert "stage: is not an invertible 2 x 3 matrix" in stage_x("0,0,0,0,0,0")
