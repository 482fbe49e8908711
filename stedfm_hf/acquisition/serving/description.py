"""OpenAPI description of a server: the errors of its routes, their forms, and the fields of its answers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stedfm_hf.acquisition.serving.messages import FinderInfo, FoundRegion

MEANINGS = {
    400: "The image or the request is wrong.",
    401: "The token is missing or wrong.",
    403: "The request is not allowed.",
    404: "The client has no such finder, or the shared folder has no such file.",
    406: "The header Accept names no type of a score map.",
    408: "The body came too slowly.",
    409: "The finder belongs to another model or is damaged, or there are too many finders, images or clients.",
    413: "The request or the image is too large, or its computation took too long.",
    415: "The image is neither a `.npy` nor a TIFF file.",
    422: "A parameter or a field is wrong, missing or unknown.",
    429: "Too many requests of this client wait; the header `Retry-After` says when to try again.",
    503: "Too many requests of all clients wait; the header `Retry-After` says when to try again.",
}
"""Meaning of each status of an error."""


@dataclass(frozen=True)
class ErrorAnswer:
    """Error.

    Attributes:
        error: One sentence: what is wrong, and how to fix it.
    """

    error: str


ANSWERS = (FinderInfo, FoundRegion, ErrorAnswer)
"""Answers whose fields are described by the docstrings of their classes."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of errors, for the argument `responses` of a route.

    Args:
        statuses: Statuses that the route may answer with.
    """
    return {status: {"model": ErrorAnswer, "description": MEANINGS[status]} for status in statuses}


def attribute_texts(kind: type) -> dict[str, str]:
    """Return the texts of the attributes in the docstring of a class.

    Args:
        kind: Class with a docstring in Google style.

    Example:
        >>> attribute_texts(ErrorAnswer)
        {'error': 'One sentence: what is wrong, and how to fix it.'}
    """
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def describe_answers(openapi: dict[str, Any]) -> dict[str, Any]:
    """Add the descriptions of the fields of answers to an OpenAPI description, and return it.

    Args:
        openapi: OpenAPI description of the server.
    """
    for kind in ANSWERS:
        schema = openapi["components"]["schemas"][kind.__name__]
        schema["description"] = (inspect.getdoc(kind) or "").partition("\n")[0]
        for name, text in attribute_texts(kind).items():
            schema["properties"][name]["description"] = text
    return openapi


def form_fields(openapi: Mapping[str, Any], route: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas of the fields of the form of a route.

    Args:
        openapi: OpenAPI description of the server.
        route: Description of the route in it.
    """
    found: dict[str, Any] = {}
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
            schema = openapi["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
            found |= schema["properties"]
    return found


def query_names(route: Mapping[str, Any]) -> set[str]:
    """Return the names of the query parameters of a route.

    Args:
        route: Description of the route in an OpenAPI description.
    """
    return {each["name"] for each in route.get("parameters", ()) if each["in"] == "query"}
