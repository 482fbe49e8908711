"""Training of the packaged diffusion model: `python -m stedfm_hf.training.demo_generation WORK`.

The command simulates crops with known attributes, trains with the recipe `demo` of `stedfm pretrain generation`, and
writes the denoising network in half precision into the package; the encoder `demo` is there already. Afterwards,
`python -m stedfm_hf.generation.demo_directions WORK/attributes-v1` fits the packaged directions.
If interrupted, run the same command again to resume.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stedfm_hf.runs.threads import limit_spinning

if __name__ == "__main__":  # before torch is imported
    limit_spinning()

import torch
from safetensors.torch import save

from stedfm_hf.data.simulation.attribute_set import NAME, simulate_attribute_set
from stedfm_hf.inference.loading import load_encoder
from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline
from stedfm_hf.runs import UserError, atomic_path, write_json
from stedfm_hf.runs.recipes import load_recipe
from stedfm_hf.runs.settings import types_of
from stedfm_hf.training.generate import pretrain_generation
from stedfm_hf.training.generation.settings import RECIPES, GenerationSettings
from stedfm_hf.weights.packaged import GENERATOR

ENCODER = RECIPE = "demo"


def train_demo_generator(work: str | os.PathLike[str], **changes: Any) -> Path:
    """Simulate the crops, and train with the recipe `demo`.

    Args:
        work: Folder for the data set `attributes-v1` and the training `run`.
        changes: Settings of the training that override the recipe.

    Returns:
        Folder of the pipeline.
    """
    crops, run = Path(work) / NAME, Path(work) / "run"
    simulate_attribute_set(crops)
    values = load_recipe(RECIPE, types_of(GenerationSettings), packaged=RECIPES) | changes
    return pretrain_generation([str(crops)], model=ENCODER, output=run, **values).output


def export_generator(pipeline: str | os.PathLike[str], output: Path = GENERATOR) -> Path:
    """Write the denoising network of a pipeline in half precision, without the encoder and the code of a Hub folder.

    Args:
        pipeline: Folder of a pipeline whose encoder is `demo`.
        output: Folder for `unet`, `scheduler` and `pipeline.json`; other files are kept.

    Returns:
        The output folder.

    Raises:
        UserError: The encoder is not that of `demo`, or the values of the network are not from -1 to 1.
    """
    loaded = StedFmGenerationPipeline.from_pretrained(str(pipeline), dtype=torch.float32)
    demo = load_encoder(ENCODER, device="cpu").model.state_dict()
    found = {} if loaded.encoder is None else loaded.encoder.state_dict()
    if found.keys() != demo.keys() or not all(torch.equal(found[name], value) for name, value in demo.items()):
        raise UserError(f"{pipeline}: its encoder is not that of demo; train it with --model demo")
    if list(loaded.config.value_range) != [-1.0, 1.0]:
        raise UserError(f"{pipeline}: was trained with --protocol reference; train it without")
    unet = loaded.unet.half()
    loaded.scheduler.save_pretrained(output / "scheduler")
    # Not `save_config`, which adds the path of the folder that the network was loaded from.
    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    write_json(output / "unet" / "config.json", {"_class_name": type(unet).__name__, **config})
    with atomic_path(output / "unet" / "model.safetensors") as temporary:
        # `save_file` would write a file that only its owner can read.
        weights = {name: value.contiguous() for name, value in unet.state_dict().items()}
        temporary.write_bytes(save(weights, {"format": "pt", "note": "trained on simulated images only"}))
    write_json(output / "pipeline.json", {"condition_dropout": loaded.config.condition_dropout})
    return output


def main(argv: Sequence[str] | None = None) -> None:
    """Train and export the model.

    Args:
        argv: Arguments of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m stedfm_hf.training.demo_generation", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the data set and the training")
    parser.add_argument(
        "--output", type=Path, default=GENERATOR, help="folder of the network; by default inside the package"
    )
    arguments = parser.parse_args(argv)
    print(export_generator(train_demo_generator(arguments.work), arguments.output))


if __name__ == "__main__":
    main()
