"""`stedfm segment` of a field of 20,000 x 20,000: the memory of everything but the network, which is a stub.

`python -m tests.benchmarks.large_field FOLDER NAME` segments the field NAME in FOLDER and prints the
peak memory in MB.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import tifffile
import torch
from scipy import ndimage

from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation, StedFmImageProcessor
from stedfm_hf.cli import main as command
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmSegmenterOutput
from tests.benchmarks.timing import own_peak, peak_memory, table

SIDE = 20_000
TILE, CHUNK = 1000, 512
LIMIT_GB = 3
CASES = (("uint16", "TIFF"), ("float32", "TIFF"), ("uint16", "TIFF, tiles, zlib"), ("uint16", "OME-Zarr"))
"""Pixel type and format of each field."""
CLASSES = {0: "background", 1: "blobs"}


def write_field(file: Path, side: int, dtype: str) -> None:
    """Blobs of some pixels, repeated; uncompressed, with a pixel size, written a band at a time."""
    band = _band(side, dtype)
    field = tifffile.memmap(
        file, shape=(side, side), dtype=dtype, imagej=True, resolution=(50, 50), metadata={"unit": "um"}
    )
    for top in range(0, side, TILE):
        field[top : top + TILE] = band[: side - top]
    field.flush()


def write_tiles(file: Path, side: int, dtype: str) -> None:
    """The same field in compressed tiles of 512 x 512."""
    band, shape, size = _band(side, dtype), (side, side), (CHUNK, CHUNK)
    corners = itertools.product(range(0, side, CHUNK), repeat=2)
    tiles = (
        band.take(range(top, top + CHUNK), axis=0, mode="wrap").take(range(left, left + CHUNK), axis=1, mode="wrap")
        for top, left in corners
    )
    resolution: dict[str, Any] = {"resolution": (500_000, 500_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(file, tiles, shape=shape, dtype=dtype, tile=size, compression="zlib", **resolution)


def write_zarr(file: Path, side: int, dtype: str) -> None:
    """The same field as OME-Zarr 0.4 in chunks of 512 x 512."""
    import zarr

    band, group = _band(side, dtype), zarr.open_group(str(file), mode="w", zarr_format=2)
    array = group.create_array("0", shape=(side, side), chunks=(CHUNK, CHUNK), dtype=dtype)
    for top in range(0, side, TILE):
        array[top : top + TILE] = band[: side - top]
    axes: list[Any] = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale: list[Any] = [{"type": "scale", "scale": [0.02, 0.02]}]
    datasets: list[Any] = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def _band(side: int, dtype: str) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((TILE, TILE)), 4, mode="wrap")
    scaled = (noise - noise.min()) / np.ptp(noise)
    return np.tile((scaled * 60000).astype(dtype), (1, -(-side // TILE)))[:, :side]


WRITERS = {"TIFF": write_field, "TIFF, tiles, zlib": write_tiles, "OME-Zarr": write_zarr}


def write_model(folder: Path) -> None:
    """A folder that loads; its weights are never used."""
    config = StedFmConfig(**ARCHITECTURES["stedfm-vit-tiny"], num_hidden_layers=1, decoder="linear", id2label=CLASSES)
    StedFmForSemanticSegmentation(config).save_pretrained(folder)
    StedFmImageProcessor().save_pretrained(folder)


def threshold(
    self: StedFmForSemanticSegmentation, pixel_values: torch.Tensor, **kwargs: object
) -> StedFmSegmenterOutput:
    """The stub: the brighter, the more a blob."""
    brightness = 8 * (pixel_values[:, :1] - 0.5)
    return StedFmSegmenterOutput(logits=torch.cat([-brightness, brightness], dim=1))


def large(rounds: int, side: int = SIDE) -> str:
    """Peak memory of the command on a field of every type and format."""
    del rounds
    rows = [[f"{dtype}, {kind}", *_measure(side, dtype, kind)] for dtype, kind in CASES]
    most = max(float(peak.strip("*")) for _, peak, *_ in rows)
    return (
        f"## `stedfm segment` of a field of {side:,} x {side:,}\n\n"
        f"The command needs at most {most:.0f} MB.\n\n"
        "The whole command in a separate process: reading, scaling, tiles, blending, all files that are written by "
        "default, and the table of objects. The network is a stub that costs nothing; the memory of a real network "
        f"for a batch is added to these numbers. The limit is {LIMIT_GB} GiB ({LIMIT_GB * 1024} MB).\n\n"
        + table(
            ["field", "peak MB", "GB read", "GB written", "objects", "minutes, with the stub"],
            rows,
        )
    )


def _measure(side: int, dtype: str, kind: str) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        file = root / ("field.zarr" if kind == "OME-Zarr" else "field.tif")
        WRITERS[kind](file, side, dtype)
        write_model(root / "model")
        print(f"field of {side} x {side} {dtype}, {kind} written", file=sys.stderr, flush=True)
        began = time.perf_counter()
        peak = peak_memory("tests.benchmarks.large_field", str(root), file.name)
        seconds = time.perf_counter() - began
        read = sum(each.stat().st_size for each in (file, *file.rglob("*"))) / 1e9
        written = sum(file.stat().st_size for file in (root / "out").iterdir()) / 1e9
        objects = pq.read_metadata(root / "out" / "objects.parquet").num_rows
    return [f"**{peak:.0f}**", f"{read:.1f}", f"{written:.1f}", f"{objects:,}", f"{seconds / 60:.1f}"]


def main() -> None:
    """Segment the field in a folder with the stub and print the peak memory."""
    root, name = Path(sys.argv[1]), sys.argv[2]
    words = ["segment", root / name, "--model", root / "model", "--output", root / "out", "--device", "cpu"]
    with patch.object(StedFmForSemanticSegmentation, "forward", threshold):
        status = command(list(map(str, words)))
    if status:
        sys.exit(status)
    print(own_peak())


if __name__ == "__main__":
    main()
