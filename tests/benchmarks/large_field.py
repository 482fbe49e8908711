"""`stedfm segment` of a field of 20,000 x 20,000: the memory of everything but the network, which is a stub.

`python -m tests.benchmarks.large_field FOLDER` segments the field in FOLDER and prints the peak memory in MB.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
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
TILE = 1000
LIMIT_GB = 3
TYPES = ("uint16", "float32")
CLASSES = {0: "background", 1: "blobs"}


def write_field(file: Path, side: int, dtype: str) -> None:
    """Blobs of some pixels, repeated; uncompressed, with a pixel size, written a band at a time."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((TILE, TILE)), 4, mode="wrap")
    scaled = (noise - noise.min()) / np.ptp(noise)
    band = np.tile((scaled * 60000).astype(dtype), (1, -(-side // TILE)))[:, :side]
    field = tifffile.memmap(
        file, shape=(side, side), dtype=dtype, imagej=True, resolution=(50, 50), metadata={"unit": "um"}
    )
    for top in range(0, side, TILE):
        field[top : top + TILE] = band[: side - top]
    field.flush()


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
    """Peak memory of the command on a field of every type."""
    del rounds
    return (
        f"## `stedfm segment` of a field of {side:,} x {side:,}\n\n"
        "The whole command in a separate process: reading, scaling, tiles, blending, all files that are written by "
        "default, and the table of objects. The network is a stub that costs nothing; the memory of a real network "
        f"for a batch is added to these numbers. The limit is {LIMIT_GB} GiB ({LIMIT_GB * 1024} MB).\n\n"
        + table(
            ["pixels", "peak MB", "GB read", "GB written", "objects", "minutes, with the stub"],
            [[dtype, *_measure(side, dtype)] for dtype in TYPES],
        )
    )


def _measure(side: int, dtype: str) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_field(root / "field.tif", side, dtype)
        write_model(root / "model")
        print(f"field of {side} x {side} {dtype} written", file=sys.stderr, flush=True)
        began = time.perf_counter()
        peak = peak_memory("tests.benchmarks.large_field", str(root))
        seconds = time.perf_counter() - began
        read = (root / "field.tif").stat().st_size / 1e9
        written = sum(file.stat().st_size for file in (root / "out").iterdir()) / 1e9
        objects = pq.read_metadata(root / "out" / "objects.parquet").num_rows
    return [f"**{peak:.0f}**", f"{read:.1f}", f"{written:.1f}", f"{objects:,}", f"{seconds / 60:.1f}"]


def main() -> None:
    """Segment the field in a folder with the stub and print the peak memory."""
    root = Path(sys.argv[1])
    words = ["segment", root / "field.tif", "--model", root / "model", "--output", root / "out", "--device", "cpu"]
    with patch.object(StedFmForSemanticSegmentation, "forward", threshold):
        status = command(list(map(str, words)))
    if status:
        sys.exit(status)
    print(own_peak())


if __name__ == "__main__":
    main()
