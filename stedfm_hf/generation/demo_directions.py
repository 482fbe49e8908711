"""Directions of the packaged diffusion model: `python -m stedfm_hf.generation.demo_directions DATASET`.

The data set is `attributes-v1`, from `python -m stedfm_hf.training.demo_generation`. The directions are fitted to its
validation split and written into the package.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stedfm_hf.data.simulation.attributes import RANGES
from stedfm_hf.generation.fit import fit_attribute
from stedfm_hf.weights.packaged import DIRECTIONS


def fit_directions(dataset: str | os.PathLike[str], output: Path = DIRECTIONS) -> list[Path]:
    """Fit the direction of each attribute of simulated crops, with the encoder `demo`.

    Args:
        dataset: Data set of crops with known attributes.
        output: Folder for a folder of each direction.

    Returns:
        The folders.
    """
    folders = []
    for attribute in RANGES:
        with tempfile.TemporaryDirectory() as work:
            fitted = fit_attribute(os.fspath(dataset), work, model="demo", target=attribute, split="validation")
        fitted.direction.save(output / attribute)
        folders.append(output / attribute)
    return folders


def main(argv: Sequence[str] | None = None) -> None:
    """Fit and write the directions.

    Args:
        argv: Arguments of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m stedfm_hf.generation.demo_directions", description=__doc__)
    parser.add_argument("dataset", type=Path, help="folder of the data set")
    parser.add_argument("--output", type=Path, default=DIRECTIONS, help="by default inside the package")
    arguments = parser.parse_args(argv)
    for folder in fit_directions(arguments.dataset, arguments.output):
        print(folder)


if __name__ == "__main__":
    main()
