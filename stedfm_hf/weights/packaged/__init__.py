"""Encoders that come with the package, with a short id, to try commands without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline

SEGMENTER = Path(__file__).parent / "demo-segmenter"
"""Folder of a decoder for masks of simulated structures, for the encoder `demo`."""
GENERATOR = SEGMENTER.with_name("demo-generator")
"""Folder of a denoising network for crops of simulated structures, for the encoder `demo`, and of its directions."""
DIRECTIONS = GENERATOR / "directions"
"""Folder of the directions of the attributes of these crops, each in a folder."""
PACKAGED = {"demo": "trained on simulated images only: for trying things out, not for results"}
"""Id of every packaged encoder, with a note that is shown wherever it is used."""


def packaged_folder(model: str) -> Path | None:
    """Return the folder of a packaged encoder, for `from_pretrained`.

    Returns:
        Folder, or None if the name is not that of a packaged encoder. `demo` always means the packaged encoder; write
        `./demo` for a folder with this name.

    Example:
        >>> packaged_folder("demo").name, packaged_folder("flclab/stedfm-vit-small")
        ('demo', None)
    """
    return Path(__file__).parent / model if model in PACKAGED else None


def packaged_name(name: str) -> str | None:
    """Return the id of a packaged encoder from its name in a manifest or a table, which has a note.

    Returns:
        Id, or None if the name is that of another model.

    Example:
        >>> packaged_name(f"demo ({PACKAGED['demo']})"), packaged_name("my-model")
        ('demo', None)
    """
    return next((each for each, note in PACKAGED.items() if name == f"{each} ({note})"), None)


def write_demo_segmenter(folder: Path) -> Path:
    """Write the encoder `demo` with its packaged decoder for masks as one model, for `load_segmenter`.

    Args:
        folder: Folder of the model; made if it does not exist.

    Returns:
        The folder.
    """
    from safetensors.numpy import load_file, save_file  # takes a while to import

    folder.mkdir(parents=True, exist_ok=True)
    demo = SEGMENTER.with_name("demo")
    weights = {name: value for name, value in load_file(demo / "model.safetensors").items() if name[:7] == "stedfm."}
    save_file(weights | load_file(SEGMENTER / "decoder.safetensors"), folder / "model.safetensors", {"format": "pt"})
    shutil.copy(SEGMENTER / "config.json", folder)
    shutil.copy(demo / "preprocessor_config.json", folder)
    return folder


def load_demo_generator(source: Path = GENERATOR) -> StedFmGenerationPipeline:
    """Return the packaged denoising network with the encoder `demo` as a pipeline, in float32 on the CPU.

    Args:
        source: Folder of the network, as `stedfm_hf.training.demo_generation` exports it.

    Example:
        >>> load_demo_generator().unet.config.sample_size
        64
    """
    import torch
    from diffusers import DDIMScheduler
    from safetensors.torch import load_file

    from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline
    from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
    from stedfm_hf.modeling.modeling_stedfm import StedFmModel
    from stedfm_hf.modeling.unet_stedfm import StedFmUNet

    demo = SEGMENTER.with_name("demo")
    with torch.random.fork_rng():
        unet = StedFmUNet.from_config(StedFmUNet.load_config(source / "unet"))
    unet.load_state_dict(load_file(source / "unet" / "model.safetensors"))
    return StedFmGenerationPipeline(
        unet.eval(),
        DDIMScheduler.from_pretrained(source / "scheduler"),
        StedFmModel.from_pretrained(demo, dtype=torch.float32),
        StedFmImageProcessor.from_pretrained(demo),
        condition_dropout=json.loads((source / "pipeline.json").read_text(encoding="utf-8"))["condition_dropout"],
    )


def write_demo_generator(folder: Path, source: Path = GENERATOR) -> Path:
    """Write the pipeline of `load_demo_generator`, for `StedFmGenerationPipeline.from_pretrained`.

    Args:
        folder: Folder of the pipeline; made if it does not exist.
        source: Folder of the network.

    Returns:
        The folder.
    """
    load_demo_generator(source).save_pretrained(folder)
    return folder
