"""Tiny images, models, tables of embeddings and indexes for the tests of discovery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import torch

from stedfm_hf import StedFmModel
from stedfm_hf.discovery.index import index
from stedfm_hf.discovery.index.building import IndexResult
from stedfm_hf.inference.tables import embedding_schema
from stedfm_hf.runs import Manifest, manifest_path
from tests.models import tiny_config

SETTINGS: dict[str, Any] = {
    "pooling": "avg",
    "precision": "float32",
    "backend": "torch",
    "tile_size": "auto",
    "series": None,
    "channel": None,
    "normalization": "percentile",
    "intensity_range": None,
    "percentiles": [0.1, 99.9],
    "target_pixel_size_nm": None,
}
PIXEL_NM = 20


def write_model(folder: Path) -> Path:
    """Write the tiny model: patches of 8 pixels, 32 numbers."""
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(folder)
    return folder


def write_image(file: Path, seed: int, shape: tuple[int, int] = (40, 48)) -> Path:
    """Write a TIFF of random 16-bit pixels of 20 nm."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 1000, shape).astype(np.uint16)
    per_um = 1000 / PIXEL_NM
    tifffile.imwrite(file, pixels, imagej=True, resolution=(per_um, per_um), metadata={"unit": "um", "axes": "YX"})
    return file


def write_images(folder: Path, classes: tuple[str, ...] = ("a", "b"), count: int = 3) -> Path:
    """Write `count` images in a folder for each class."""
    for number, name in enumerate(classes):
        for k in range(count):
            write_image(folder / name / f"{name}{k}.tif", 10 * number + k)
    return folder


def write_table(
    file: Path,
    embeddings: np.ndarray,
    paths: list[str] | None = None,
    *,
    model: str = "test",
    weights: str = "0" * 64,
    **settings: Any,
) -> Path:
    """Write a table as `embed` does, with one row per image."""
    paths = [f"{number}.tif" for number in range(len(embeddings))] if paths is None else paths
    dim = embeddings.shape[1]
    values = pa.FixedSizeListArray.from_arrays(np.asarray(embeddings, np.float32).ravel(), dim)
    count = len(paths)
    columns: dict[str, Any] = {
        "path": paths,
        "series": ["image"] * count,
        "channel": ["0"] * count,
        "height": [64] * count,
        "width": [64] * count,
        "pixel_size_nm": [[20.0, 20.0]] * count,
        "embedding": values,
        "model": [model] * count,
        "weights_sha256": [weights] * count,
    }
    schema = embedding_schema(dim, patches=False)
    pq.write_table(pa.table({name: columns[name] for name in schema.names}, schema=schema), file)
    manifest = Manifest("embed", settings=SETTINGS | settings, model=model, weights_sha256=weights)
    for path in paths:
        manifest.done(path)
    manifest.finish()
    manifest.save(manifest_path(file, folder=False))
    return file


def table_index(folder: Path, embeddings: np.ndarray, paths: list[str] | None = None, **options: Any) -> IndexResult:
    """Index a table of embeddings."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    table = write_table(folder.parent / f"{folder.name}.parquet", embeddings, paths)
    return index(table, output=folder, **options)


def clusters(count: int, dim: int, groups: int = 40, seed: int = 0) -> np.ndarray:
    """Return embeddings (count, dim) in groups that overlap."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(groups, dim))
    return (centres[random.integers(0, groups, count)] + random.normal(size=(count, dim))).astype(np.float32)
