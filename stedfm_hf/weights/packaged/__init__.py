"""Encoders that come with the package, with a short id, to try commands without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

SEGMENTER = Path(__file__).parent / "demo-segmenter"
"""Folder of a decoder for masks of simulated structures, for the encoder `demo`."""
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
