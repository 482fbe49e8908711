"""Make the packaged encoder `demo`: `python -m stedfm_hf.training.demo_encoder WORK`.

It simulates the images, trains by the recipe `demo`, and writes the encoder in half precision into the package.
If interrupted, run the same command again to resume.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stedfm_hf.runs.threads import limit_spinning

if __name__ == "__main__":  # before torch is imported
    limit_spinning()

import torch
from safetensors.torch import load_file, save
from transformers import AutoImageProcessor

from stedfm_hf.data import simulate
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.runs import atomic_path, write_json
from stedfm_hf.runs.recipes import load_recipe
from stedfm_hf.runs.settings import types_of
from stedfm_hf.training.pretrain import pretrain
from stedfm_hf.training.settings import RECIPES, PretrainSettings
from stedfm_hf.weights.packaged import PACKAGED, packaged_folder

MODEL = "demo"
PRESET = "benchmark-v1"
FIELDS_PER_STRUCTURE = 1500
FIRST_FIELD = 1000
"""Fields of the benchmark are numbered below it: none of them is trained on."""
WEIGHTS = "model.safetensors"
CONFIGURATIONS = ("config.json", "preprocessor_config.json")
ABOUT_CODE = ("auto_map", "custom_pipelines")
"""Of a configuration what points to code beside it, which the package has no need of."""


def simulate_pool(output: Path) -> None:
    """Simulate the images to train on; if interrupted, the same call resumes."""
    simulate(output, preset=PRESET, per_structure=FIELDS_PER_STRUCTURE, first_index=FIRST_FIELD, format="dataset")


def simulate_benchmark(output: Path) -> None:
    """Simulate the images of the held-out evaluation."""
    simulate(output, preset=PRESET, format="dataset")


def train_demo_encoder(work: str | os.PathLike[str], **changes: Any) -> Path:
    """Simulate the images and train by the recipe `demo`.

    Args:
        work: Folder for the data sets `pool` and `benchmark-v1` and the training `run`.
        changes: Settings of the pretraining that replace those of the recipe.

    Returns:
        Folder of the trained masked autoencoder.
    """
    folder = Path(work)
    pool, benchmark, run = folder / "pool", folder / PRESET, folder / "run"
    simulate_pool(pool)
    simulate_benchmark(benchmark)
    values = load_recipe(MODEL, types_of(PretrainSettings), packaged=RECIPES) | changes
    return pretrain([str(pool)], output=run, validation_dataset=[str(benchmark)], **values).output


def export_encoder(run: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Writes the encoder of a masked autoencoder in half precision, without the code that a Hub folder has.

    Args:
        run: folder of the model.
        output: folder that gets `config.json`, `preprocessor_config.json` and `model.safetensors`; other files in it
            stay.

    Returns:
        The output folder.
    """
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        StedFmModel.from_pretrained(run, dtype=torch.float16).save_pretrained(name)
        AutoImageProcessor.from_pretrained(run).save_pretrained(name)
        for part in CONFIGURATIONS:
            values = json.loads(Path(name, part).read_text(encoding="utf-8"))
            write_json(target / part, {key: value for key, value in values.items() if key not in ABOUT_CODE})
        with atomic_path(target / WEIGHTS) as temporary:
            # `save_file` would make a file that only its owner can read.
            temporary.write_bytes(save(load_file(Path(name, WEIGHTS)), {"format": "pt", "note": PACKAGED[MODEL]}))
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(prog="python -m stedfm_hf.training.demo_encoder", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the data sets and the training")
    parser.add_argument("--output", type=Path, default=packaged_folder(MODEL), help="by default into the package")
    arguments = parser.parse_args(argv)
    print(export_encoder(train_demo_encoder(arguments.work), arguments.output))


if __name__ == "__main__":
    main()
