"""Archives with the layout of the official ones, made of random images."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


def source_id(number: int) -> str:
    return str(uuid.uuid3(uuid.NAMESPACE_DNS, f"image {number}"))


def crop_pixels(seed: int, dtype: str = "uint8", size: int = 224) -> np.ndarray:
    top = 256 if dtype == "uint8" else 4000
    return np.random.default_rng(seed).integers(0, top, (size, size)).astype(dtype)


def npz(image: np.ndarray, metadata: Any, *, save: Callable[..., None] = np.savez) -> bytes:
    buffer = io.BytesIO()
    save(buffer, image=image, metadata=metadata)
    return buffer.getvalue()


def scraped(number: int, *, dtype: str = "uint8", y: int = 0, x: int = 224, **other: Any) -> tuple[str, bytes]:
    """Return a member of an archive without labels."""
    metadata = {
        "image-id": source_id(number // 4),
        "image-type": "tif",
        "chan-id": "STED_594 {6}",
        "protein-id": "unknown",
        "msr-key": "STED_594 {6}",
        "msr-metadata": {
            "SizeX": 600,
            "SizeY": 500,
            "PhysicalSizeX": 0.02,
            "PhysicalSizeY": "0.025",
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
            "Name": "D:\\Data\\zoe\\cell_1.msr",
            "AcquisitionDate": "2020-01-31",
        },
        "key": "/server/zoe/cell_1.msr",
    }
    name = f"{source_id(number // 4)}-{y}-{x + number % 4}"
    return name, npz(crop_pixels(number, dtype), metadata | other)


def curated(number: int, protein: str, dtype: str = "uint8") -> tuple[str, bytes]:
    """Return a member of an archive with labels."""
    metadata = {
        "chan-id": 1,
        "image-id": source_id(number),
        "image-type": "msr",
        "user-id": "zoe",
        "protein-id": protein,
    }
    return f"{protein}-{source_id(number)}-448-0", npz(crop_pixels(number, dtype), metadata)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    # The stubs know modes written out only; here they are put together of parts.
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Return all rows in the order of the files, with their split and decoded pixels."""
    found = []
    for path in sorted((output / "data").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            shape = row["height"], row["width"]
            row["pixels"] = np.frombuffer(row["pixels"], row["dtype"]).reshape(shape)
            row |= {"split": path.name.partition("-")[0], "metadata": json.loads(row["metadata"])}
            row["scaling"] = json.loads(row["scaling"])
            found.append(row)
    return found


def pixels_of(output: Path) -> set[bytes]:
    return {row["pixels"].tobytes() for row in rows_of(output)}
