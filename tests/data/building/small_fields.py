"""Small fields on disk, and readers of the data sets that are built from them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tifffile

from stedfm_hf.data.building.build import build
from stedfm_hf.runs import Manifest

CROP = 32
NO_SPLIT: dict[str, Any] = {"validation": 0.0, "test": 0.0}


def spots(seed: int, shape: tuple[int, ...] = (70, 100), dtype: str = "uint16") -> np.ndarray:
    """Return counts with a dark background and a bright disc every 32 pixels, so that every crop has foreground."""
    y, x = np.mgrid[: shape[-2], : shape[-1]] % CROP - CROP / 2
    rng = np.random.default_rng(seed)
    return rng.poisson(np.broadcast_to(2 + 60 * (y**2 + x**2 < 49), shape)).astype(dtype)


def write(folder: Path, **files: np.ndarray) -> Path:
    """Write TIFF files with a pixel size of 20 nm; `__` in a name separates folders."""
    for name, array in files.items():
        path = folder / (name.replace("__", "/") + ".tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, array, imagej=True, resolution=(50, 50), metadata={"unit": "um"})
    return folder


def rows_of(repo: Path) -> list[dict[str, Any]]:
    """Read all rows, sorted by source, series, channel and position, with decoded pixels."""
    rows = [row for path in sorted(repo.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]
    for row in rows:
        shape = row["height"], row["width"]
        row["array"] = np.frombuffer(row["pixels"], row["dtype"]).reshape(shape)
    return sorted(rows, key=lambda row: (row["source"], row["series"], row["channel"], row["y"], row["x"]))


def bytes_of(repo: Path) -> dict[str, str]:
    """Return the SHA-256 of each shard and of the index."""

    files = [*sorted(repo.glob("data/*.parquet")), repo / "index.json"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def source_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def reasons(repo: Path) -> dict[str, tuple[str, str]]:
    items = Manifest.load(repo / "manifest.json").items
    return {item: (status.state, status.reason or "") for item, status in items.items()}


def make(inputs: Any, output: Path, **options: Any) -> Any:
    return build(inputs, output, **({"crop_size": CROP, "workers": 1} | options))
