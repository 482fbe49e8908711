"""Training of the packaged encoder `demo`: `python -m stedfm_hf.training.demo_encoder WORK`.

The command simulates images, trains with the recipe `demo`, and writes the masked autoencoder in half precision into
the package.
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

from safetensors.torch import load_file, save
from transformers import AutoImageProcessor

from stedfm_hf.data import simulate
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
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
"""Index of the first training field; the benchmark has the fields below, so the two are disjoint."""
WEIGHTS = "model.safetensors"
CONFIGURATIONS = ("config.json", "preprocessor_config.json")
CODE_KEYS = ("auto_map", "custom_pipelines")
"""Keys of a configuration that refer to code in the model folder; not needed inside the package."""


def simulate_pool(output: Path) -> None:
    """Simulate the training images; if interrupted, the same call resumes.

    Args:
        output: Folder of the data set.
    """
    simulate(output, preset=PRESET, per_structure=FIELDS_PER_STRUCTURE, first_index=FIRST_FIELD, format="dataset")


def simulate_benchmark(output: Path) -> None:
    """Simulate the images of the held-out evaluation.

    Args:
        output: Folder of the data set.
    """
    simulate(output, preset=PRESET, format="dataset")


def train_demo_encoder(work: str | os.PathLike[str], **changes: Any) -> Path:
    """Simulate the images, and train with the recipe `demo`.

    Args:
        work: Folder for the data sets `pool` and `benchmark-v1` and the training `run`.
        changes: Settings of the pretraining that override the recipe.

    Returns:
        Folder of the trained masked autoencoder.
    """
    folder = Path(work)
    pool, benchmark, run = folder / "pool", folder / PRESET, folder / "run"
    simulate_pool(pool)
    simulate_benchmark(benchmark)
    values = load_recipe(MODEL, types_of(PretrainSettings), packaged=RECIPES) | changes
    return pretrain([str(pool)], output=run, validation_dataset=[str(benchmark)], **values).output


def export_model(
    network: StedFmForPreTraining, processor: StedFmImageProcessor, output: str | os.PathLike[str]
) -> Path:
    """Write a masked autoencoder in half precision, without the code of a Hub folder.

    Args:
        network: Masked autoencoder; converted to half precision in place.
        processor: Image processor of its encoder.
        output: Folder for `config.json`, `preprocessor_config.json` and `model.safetensors`; other files are kept.

    Returns:
        The output folder.
    """
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        network.half().save_pretrained(name)
        processor.save_pretrained(name)
        for part in CONFIGURATIONS:
            values = json.loads(Path(name, part).read_text(encoding="utf-8"))
            write_json(target / part, {key: value for key, value in values.items() if key not in CODE_KEYS})
        with atomic_path(target / WEIGHTS) as temporary:
            # `save_file` would write a file that only its owner can read.
            temporary.write_bytes(save(load_file(Path(name, WEIGHTS)), {"format": "pt", "note": PACKAGED[MODEL]}))
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Train and export the model.

    Args:
        argv: Arguments of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m stedfm_hf.training.demo_encoder", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the data sets and the training")
    parser.add_argument(
        "--output",
        type=Path,
        default=packaged_folder(MODEL),
        help="folder of the model; by default inside the package",
    )
    arguments = parser.parse_args(argv)
    run = train_demo_encoder(arguments.work)
    network, processor = StedFmForPreTraining.from_pretrained(run), AutoImageProcessor.from_pretrained(run)
    print(export_model(network, processor, arguments.output))


if __name__ == "__main__":
    main()
