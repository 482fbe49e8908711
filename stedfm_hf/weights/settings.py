"""Settings of `convert`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import options
from stedfm_hf.runs.settings import argument, settings


@settings
class ConvertSettings:
    """Convert a STED-FM checkpoint to a folder for transformers.

    The folder holds safetensors, configuration, image processor and model code, ready for the Hub.
    """

    source: str | Path = argument(
        help="Name of official weights (MAE_SMALL_STED), a .zip, .pth, .pt, .ckpt or .safetensors file, or its URL."
    )
    output: str | Path = argument(affects_result=False, help="Folder to write.")
    overwrite: bool = options.overwrite()
