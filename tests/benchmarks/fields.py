"""A field of many tiles: blending compared with the network alone and with MONAI's sliding window.

`python -m tests.benchmarks.fields CASE SIDE` segments one field and prints the peak memory in MB. MONAI is needed for
this benchmark only and is not a dependency: `MISSING` says how to get it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation
from stedfm_hf.modeling.blending_stedfm import default_tile_overlap, segment_image, segment_rows, tile_starts
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from tests.benchmarks.timing import own_peak, peak_memory, spread, table, take_turns

SIDE = 4096
BATCH = 8
CLASSES = 2
LAYERS = 4
CONFIG = StedFmConfig(**ARCHITECTURES["stedfm-vit-tiny"], num_hidden_layers=LAYERS, num_labels=CLASSES)
TILE_SIZE = CONFIG.image_size
OVERLAP = default_tile_overlap(TILE_SIZE, CONFIG.patch_size)
CASES = {
    "alone": "network alone, maps dropped",
    "rows": "`segment_rows`, bands dropped",
    "image": "`segment_image`",
    "monai": "MONAI `sliding_window_inference`, `gaussian`",
}
MISSING = """MONAI is missing. `make bench-segmentation` installs it. To install it yourself, outside the environment:
  pip install --no-deps --target build/monai monai==1.6.1
  PYTHONPATH=build/monai python -m tests.benchmarks.segmentation"""


def monai() -> Any:
    """Import MONAI.

    Raises:
        SystemExit: MONAI is not installed; the message says how to install it.
    """
    try:
        importlib.import_module("monai.inferers.utils")
        return importlib.import_module("monai")
    except ImportError as error:
        raise SystemExit(f"{MISSING}\n({error})") from error


def cases(side: int) -> dict[str, Callable[[], object]]:
    """A field through the network in four ways, all with the same tiles and the same batch."""
    sliding_window_inference = monai().inferers.utils.sliding_window_inference
    torch.manual_seed(0)
    model = StedFmForSemanticSegmentation(CONFIG).eval()
    image = np.random.default_rng(0).random((1, side, side), dtype=np.float32)

    def predict(pixels: torch.Tensor) -> torch.Tensor:
        return model.probabilities(model(pixels).logits)

    def alone() -> object:
        with torch.inference_mode():
            for first in range(0, number, BATCH):
                predict(batch[: number - first])
        return None

    def rows() -> object:
        bands = segment_rows(model, lambda top, bottom: image[:, top:bottom], (side, side), batch_size=BATCH)
        return sum(1 for _ in bands)

    def whole() -> object:
        return segment_image(model, image, batch_size=BATCH)

    def sliding() -> object:
        pixels = torch.from_numpy(image)[None]
        with torch.inference_mode():
            return sliding_window_inference(
                pixels, (TILE_SIZE, TILE_SIZE), BATCH, predict, overlap=OVERLAP / TILE_SIZE, mode="gaussian"
            )

    number = len(tile_starts(side, TILE_SIZE, OVERLAP)) ** 2
    batch = torch.rand(BATCH, 1, TILE_SIZE, TILE_SIZE)
    return {"alone": alone, "rows": rows, "image": whole, "monai": sliding}


def fields(rounds: int, side: int = SIDE) -> str:
    """Time of a field in four ways, round by round, and the memory of each in a separate process."""
    calls = cases(side)
    rates = take_turns({name: (call, 1.0) for name, call in calls.items()}, rounds)
    peaks = {name: peak_memory("tests.benchmarks.fields", name, str(side)) for name in CASES}
    rows = [
        [
            label,
            spread([1 / rate for rate in rates.values[name]], 1),
            spread(rates.ratios("alone", name), 3),
            spread(rates.ratios("monai", name), 3),
            f"{peaks[name]:.0f}",
        ]
        for name, label in CASES.items()
    ]
    tiles = len(tile_starts(side, TILE_SIZE, OVERLAP))
    model = StedFmForSemanticSegmentation(CONFIG)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return (
        f"## A field of {side} x {side}, compared with MONAI {monai().__version__}\n\n"
        f"`segment_image` takes {median(rates.ratios('monai', 'image')):.2f} times the time of MONAI and "
        f"{peaks['image']:.0f} MB (MONAI {peaks['monai']:.0f} MB).\n\n"
        f"The same network (vit-tiny of {LAYERS} layers, `{CONFIG.decoder}`, {CLASSES} classes, {millions:.2f} M "
        f"parameters, float32, probabilities included), the same {tiles} x {tiles} tiles of {TILE_SIZE} with an "
        f"overlap of {OVERLAP}, batch {BATCH}. It is smaller than any published network, so the cost of blending is "
        "most visible. The network alone gets batches of noise, as many tiles as the field has. The image, MONAI and "
        "the network are in memory in all four processes, so the first row is what the others start with.\n\n"
        + table(["", "seconds", "x time of the network", "x time of MONAI", "peak MB"], rows)
    )


def main() -> None:
    """Segment one field and print the peak memory."""
    name, side = sys.argv[1:]
    cases(int(side))[name]()
    print(own_peak())


if __name__ == "__main__":
    main()
