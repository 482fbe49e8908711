"""Export of the packaged segmenter: `python -m stedfm_hf.training.demo_segmenter FOLDER`.

FOLDER is a segmenter that was trained on the frozen encoder `demo` with `stedfm finetune segmentation --mode frozen`.
Only its decoder is written into the package, in half precision; the encoder is there already.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from stedfm_hf.runs import UserError, atomic_path, write_json
from stedfm_hf.weights.packaged import SEGMENTER, packaged_folder

ENCODER = "stedfm."
"""Prefix of the weights of the encoder."""
CODE_KEYS = ("auto_map", "custom_pipelines")


def export_decoder(segmenter: Path, output: Path = SEGMENTER) -> None:
    """Write the configuration and the decoder of a segmenter whose encoder is `demo`.

    Args:
        segmenter: Folder of the segmenter.
        output: Folder for `config.json` and `decoder.safetensors`.

    Raises:
        UserError: If the encoder is not that of `demo`.
    """
    demo = packaged_folder("demo")
    assert demo is not None
    weights, encoder = load_file(segmenter / "model.safetensors"), load_file(demo / "model.safetensors")
    if any(
        not torch.equal(weights[name].half(), value) for name, value in encoder.items() if name.startswith(ENCODER)
    ):
        raise UserError(f"{segmenter}: its encoder is not that of demo; train it with --model demo --mode frozen")
    output.mkdir(parents=True, exist_ok=True)
    config = json.loads((segmenter / "config.json").read_text(encoding="utf-8"))
    write_json(output / "config.json", {key: value for key, value in config.items() if key not in CODE_KEYS})
    decoder = {
        name: value.half() if value.is_floating_point() else value
        for name, value in weights.items()
        if not name.startswith(ENCODER)
    }
    with atomic_path(output / "decoder.safetensors") as temporary:
        temporary.write_bytes(save(decoder, {"format": "pt", "note": "trained on simulated images only"}))


def main(argv: Sequence[str] | None = None) -> None:
    """Export the decoder.

    Args:
        argv: Arguments of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m stedfm_hf.training.demo_segmenter", description=__doc__)
    parser.add_argument("segmenter", type=Path, help="folder of the trained segmenter")
    export_decoder(parser.parse_args(argv).segmenter)


if __name__ == "__main__":
    main()
