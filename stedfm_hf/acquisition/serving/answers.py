"""Score maps as JSON, `.npy` or TIFF, whichever the client accepts."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from fastapi import Response
from fastapi.responses import JSONResponse

from stedfm_hf.acquisition.serving.errors import RequestError
from stedfm_hf.acquisition.serving.messages import JSON, NPY, TIFF, FieldScores
from stedfm_hf.inference.maps import write_map_tiff
from stedfm_hf.inference.preparation import Fact

_OF_RANGE = {"*/*": JSON, "application/*": JSON, "image/*": TIFF}


def chosen_type(accept: str) -> str:
    """Return the first type of the header `Accept` that a score map can have.

    Args:
        accept: Header; empty accepts any type.

    Raises:
        RequestError: If there is none.

    Example:
        >>> chosen_type("text/html, image/tiff;q=0.9"), chosen_type("*/*")
        ('image/tiff', 'application/json')
    """
    for each in (accept or "*/*").split(","):
        name = each.partition(";")[0].strip().lower()
        if (found := _OF_RANGE.get(name, name)) in (JSON, NPY, TIFF):
            return found
    raise RequestError(406, f"score maps are sent as {JSON}, {NPY} or {TIFF}; name one in the header Accept")


def score_response(maps: FieldScores, fact: Fact, content_type: str) -> Response:
    """Return the response with the score maps of a field.

    Args:
        maps: Score maps.
        fact: Facts about the field.
        content_type: Type of content, of `chosen_type`.
    """
    if content_type == JSON:
        about = {"classes": maps.classes, "cell_px": maps.cell_px}
        return JSONResponse(about | {"scores": maps.values.tolist()})
    if content_type == NPY:
        buffer = io.BytesIO()
        np.save(buffer, maps.values, allow_pickle=False)
        content = buffer.getvalue()
    else:
        limits = float(maps.values.min()), float(maps.values.max())
        with tempfile.TemporaryDirectory(prefix="stedfm-serve-") as folder:
            file = Path(folder, "scores.tif")
            write_map_tiff(file, maps.values, maps.classes, limits, maps.cell_px, fact)
            content = file.read_bytes()
    return Response(content, media_type=content_type, headers=maps.headers())
