"""A model, images with bright squares, and servers in this process for the tests of the server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from starlette.testclient import TestClient

from stedfm_hf import StedFmModel
from stedfm_hf.acquisition.serving.application import make_app
from stedfm_hf.acquisition.serving.server import Server
from stedfm_hf.acquisition.serving.settings import ServeSettings
from tests.models import tiny_config

SHAPE = (64, 80)
SPOTS = [(20, 28), (44, 60)]
ADDRESS = "http://127.0.0.1:8321"


def write_model(folder: Path) -> Path:
    """Write a tiny model."""
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(folder)
    return folder


def field(number: int = 0, dtype: Any = np.uint16) -> np.ndarray:
    """Noise with a bright square at a spot (H, W)."""
    pixels = np.random.default_rng(number).poisson(3, SHAPE).astype(dtype)
    y, x = SPOTS[number]
    pixels[y - 4 : y + 4, x - 4 : x + 4] += 200
    return pixels


def mask(number: int = 0) -> np.ndarray:
    """Mask of the square (H, W) uint8."""
    y, x = SPOTS[number]
    found = np.zeros(SHAPE, np.uint8)
    found[y - 4 : y + 4, x - 4 : x + 4] = 1
    return found


def npy(array: np.ndarray, **how: Any) -> bytes:
    """Bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


def tiff(array: np.ndarray, **how: Any) -> bytes:
    """Bytes of a TIFF file."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **how)
    return buffer.getvalue()


@contextmanager
def serving(model: Path, state: Path, **settings: Any) -> Iterator[TestClient]:
    """Serve in this process; errors of the server are raised here."""
    app = make_app(ServeSettings(model=model, state=state, device="cpu", **settings))
    with TestClient(app, base_url=ADDRESS) as http:
        yield http


def parts(http: TestClient) -> Server:
    """The parts of a server."""
    app: Any = http.app
    server: Server = app.state.server
    return server
