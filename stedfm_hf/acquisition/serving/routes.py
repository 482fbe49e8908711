"""Routes of a server."""

from __future__ import annotations

import json
import time
from importlib import metadata
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field

from stedfm_hf.acquisition.serving.answers import chosen_type, score_response
from stedfm_hf.acquisition.serving.description import errors, form_fields, query_names
from stedfm_hf.acquisition.serving.engine import Wanted
from stedfm_hf.acquisition.serving.errors import RequestError
from stedfm_hf.acquisition.serving.messages import JSON, NPY, REMARK_HEADER, TIFF, FinderInfo, FoundRegion
from stedfm_hf.acquisition.serving.page import routes_page
from stedfm_hf.acquisition.serving.reference_route import SCHEMA
from stedfm_hf.acquisition.serving.server import SentAnnotation, SentImage, Server
from stedfm_hf.acquisition.stage import check_matrix

Method = Literal["templates", "prototypes", "logistic", "forest"]
Length = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILE = "Bytes of a `.npy` or TIFF file, in place of `path`."
_TYPES = {NPY: _BINARY, TIFF: _BINARY, "application/octet-stream": _BINARY}
IMAGE_BODY = {"requestBody": {"description": _FILE, "content": _TYPES}}
"""Description of a body that is the file of an image."""
MAPS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Score maps.", "content": {JSON: {}, NPY: _BINARY, TIFF: _BINARY}}
}
"""Description of an answer with score maps."""
REGIONS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            REMARK_HEADER: {
                "description": "Why the list is empty, as a JSON string; only of an empty list.",
                "schema": {"type": "string"},
            }
        }
    }
}
"""Description of an answer with regions."""
_PROCESS_BODY = {
    "requestBody": {
        "description": "JSON object of a client of the published server.",
        "content": {JSON: {"schema": SCHEMA}},
    }
}
COMPUTES = errors(404, 408, 409, 415, 429, 503)
"""Errors of routes that compute with an image."""
MOST = 1e12
"""Largest number of the matrix of a stage."""
bearer = HTTPBearer(auto_error=False, description="Token of a client: `POST /clients`, or ask the operator.")
"""Description of the token, which the gate has checked."""


async def _known(request: Request) -> None:
    """Refuse query parameters and fields of forms that the route does not have.

    Raises:
        RequestError: If there is one.
    """
    openapi = request.app.openapi()
    route = openapi["paths"].get(request.scope["route"].path, {}).get(request.method.lower(), {})
    fields = form_fields(openapi, route)
    given = [(list(request.query_params), query_names(route), "parameter")]
    if fields:
        given.append((list(await request.form()), set(fields), "field"))
    for sent, known, kind in given:
        if unknown := [name for name in sent if name not in known]:
            names = ", ".join(sorted(known)) or "none"
            raise RequestError(422, f"the {kind} {unknown[0][:100]!r} is unknown; the route has: {names}")


router = APIRouter(dependencies=[Depends(_known)], responses=errors(400, 403, 413, 422))


async def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


async def _token(token: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
    """Describe that a route needs a token."""


async def _client(request: Request, token: Annotated[None, Depends(_token)]) -> str:
    return str(request.state.client)


async def _path(
    path: Annotated[str | None, Query(description="Path below the shared folder, in place of a body.")] = None,
) -> str | None:
    return path


async def _pixel_size(
    pixel_size_nm: Annotated[
        list[Length] | None, Query(max_length=2, description="Pixel size in nm: one number, or y and x.")
    ] = None,
) -> tuple[float, float] | None:
    return _pair(pixel_size_nm)


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return (values[0], values[-1]) if values else None


async def _sent(
    request: Request,
    path: Annotated[str | None, Depends(_path)],
    pixel_size_nm: Annotated[tuple[float, float] | None, Depends(_pixel_size)],
) -> SentImage:
    return SentImage(await request.body(), path, pixel_size_nm)


async def _sent_annotation(
    mask: Annotated[UploadFile | None, File(description="Mask of the image as a .npy or TIFF file.")] = None,
    clicks: Annotated[str, Form(description='Clicks in place of a mask: JSON [[y, x], [y, x, "class"], ...].')] = "",
    click_radius_px: Annotated[float | None, Form(gt=0, le=256, description="Radius of a click, in pixels.")] = None,
) -> SentAnnotation:
    return SentAnnotation(b"" if mask is None else await mask.read(), clicks, click_radius_px)


async def _sent_file(
    image: Annotated[UploadFile | None, File(description="Image as a .npy or TIFF file.")] = None,
    path: Annotated[str | None, Form(description="Path of the image below the shared folder.")] = None,
) -> SentImage:
    return SentImage(b"" if image is None else await image.read(), path)


ServerPart = Annotated[Server, Depends(_server)]
ClientId = Annotated[str, Depends(_client)]
FinderId = Annotated[str, Query(description="Id of the finder.")]
FinderPath = Annotated[str, Path(description="Id of the finder.")]
Sent = Annotated[SentImage, Depends(_sent)]
SentMarks = Annotated[SentAnnotation, Depends(_sent_annotation)]


@router.get("/health")
async def health() -> dict[str, str]:
    """Return whether the server is ready."""
    return {"status": "ready", "version": metadata.version("stedfm-hf")}


@router.get("/", include_in_schema=False)
@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Return a page with all routes."""
    return HTMLResponse(routes_page(request.app.openapi()))


@router.post("/clients", status_code=201, responses=errors(401, 409))
async def new_client(server: ServerPart) -> dict[str, str]:
    """Make a client, and return its token."""
    if server.tokens.values:
        raise RequestError(403, "the operator of this server gives the tokens; ask for one")
    return {"token": server.store.new_client()}


@router.get("/models", dependencies=[Depends(_token)], responses=errors(401))
async def models(server: ServerPart) -> list[dict[str, Any]]:
    """List the model of the server."""
    return [server.engine.about()]


@router.get("/metrics", dependencies=[Depends(_token)], responses=errors(401))
async def measured(server: ServerPart) -> dict[str, Any]:
    """Return counts and times of requests."""
    uptime = round(time.monotonic() - server.began, 3)
    return {"uptime_s": uptime, "working": server.admission.count, "requests": server.metrics.to_json()}


@router.get("/finders", responses=errors(401, 409))
def finders(server: ServerPart, client: ClientId) -> list[FinderInfo]:
    """List the finders of the client."""
    return server.store.finders(client)


@router.get("/finders/{finder}", responses=errors(401, 404, 409))
def finder(finder: FinderPath, server: ServerPart, client: ClientId) -> FinderInfo:
    """Describe a finder."""
    return server.store.info(client, finder)


@router.post("/finders", status_code=201, responses=errors(401) | COMPUTES)
async def create(
    server: ServerPart,
    client: ClientId,
    image: Annotated[SentImage, Depends(_sent_file)],
    annotation: SentMarks,
    method: Annotated[Method, Form(description="Method, as for `stedfm finder fit`.")] = "templates",
    classes: Annotated[
        list[Annotated[str, Field(max_length=100)]] | None, Form(max_length=64, description="Names of the classes.")
    ] = None,
    rotations: Annotated[bool, Form(description="Whether the image is also used rotated.")] = True,
) -> FinderInfo:
    """Fit a finder to an annotated image."""
    return await server.work.run(server.create, client, image, annotation, method, classes or [], rotations)


@router.post("/finders/{finder}/annotations", responses=errors(401) | COMPUTES)
async def annotate(
    finder: FinderPath,
    server: ServerPart,
    client: ClientId,
    image: Annotated[SentImage, Depends(_sent_file)],
    annotation: SentMarks,
) -> FinderInfo:
    """Fit a finder again, to another annotated image as well."""
    return await server.work.run(server.annotate, client, finder, image, annotation)


@router.delete("/finders/{finder}", status_code=204, responses=errors(401, 404, 429, 503))
async def delete(finder: FinderPath, server: ServerPart, client: ClientId) -> None:
    """Delete a finder."""
    await server.work.run(server.store.delete, client, finder)


@router.post("/score", openapi_extra=IMAGE_BODY, responses=MAPS | errors(401, 406) | COMPUTES)
async def score(request: Request, finder: FinderId, server: ServerPart, client: ClientId, image: Sent) -> Response:
    """Compute the score maps of a field.

    The header Accept selects JSON, `.npy` or TIFF.
    """
    content_type = chosen_type(request.headers.get("accept", ""))
    fact, maps = await server.work.run(server.score, client, finder, image)
    return score_response(maps, fact, content_type)


@router.post("/regions", openapi_extra=IMAGE_BODY, responses=REGIONS | errors(401) | COMPUTES)
async def regions(
    response: Response,
    finder: FinderId,
    server: ServerPart,
    client: ClientId,
    image: Sent,
    count: Annotated[int, Query(ge=1, le=10_000, description="Largest number of regions of a class.")] = 25,
    min_score: Annotated[Number | None, Query(description="Smallest score of a region.")] = None,
    region_size_px: Annotated[Length | None, Query(description="Height and width of a region, in pixels.")] = None,
    region_size_um: Annotated[Length | None, Query(description="The same in micrometres.")] = None,
    min_distance_px: Annotated[
        Length | None, Query(description="Smallest distance of two regions, in pixels.")
    ] = None,
    stage: Annotated[
        list[str] | None,
        Query(description="Matrix of 2 x 3 of the stage, as for `stedfm find`: six numbers, row by row."),
    ] = None,
) -> list[FoundRegion]:
    """Find the regions of a field to image next.

    An empty list comes with the header X-Remark, which says why.
    """
    if region_size_px is not None and region_size_um is not None:
        raise RequestError(422, "region_size_px and region_size_um both give the size of a region; send one of them")
    matrix = None if stage is None else parse_matrix(stage)
    wanted = Wanted(count, min_score, region_size_px, region_size_um, min_distance_px, matrix)
    found, remark = await server.work.run(server.regions, client, finder, image, wanted)
    if remark is not None:
        response.headers[REMARK_HEADER] = json.dumps(remark)
    return found


@router.post("/process", openapi_extra=_PROCESS_BODY, responses=errors(401, 408, 429, 503))
async def process(request: Request, server: ServerPart) -> JSONResponse:
    """Respond to a client of the published server."""
    return JSONResponse(await server.work.run(server.process, await request.body()))


def parse_matrix(texts: list[str]) -> np.ndarray:
    """Convert the parameters of a matrix of the stage to the matrix (2, 3) float64.

    Args:
        texts: Six numbers, row by row: separated by commas, or one in each text.

    Raises:
        RequestError: If there are not six numbers.
        UserError: If the matrix is not invertible.

    Example:
        >>> parse_matrix(["0.02,0,1000", "0,0.02,500"]).tolist()
        [[0.02, 0.0, 1000.0], [0.0, 0.02, 500.0]]
    """
    try:
        numbers = [float(each) for each in ",".join(texts).split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 6 or not all(abs(each) <= MOST for each in numbers):
        raise RequestError(
            422, "stage: is not a matrix of 2 x 3; send six numbers, row by row and separated by commas"
        )
    return check_matrix(np.reshape(numbers, (2, 3)), "stage")
