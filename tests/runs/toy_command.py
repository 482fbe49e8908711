"""A whole command on the skeleton: what a new command needs around its own work."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stedfm_hf.images import find_images, read_image
from stedfm_hf.runs import options
from stedfm_hf.runs.items import process_items
from stedfm_hf.runs.output import open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import option, settings, takes_settings


@settings
class BrightnessSettings:
    """Measure the brightness of images."""

    inputs: options.Inputs = options.inputs()
    output: Path = option(Path("brightness"), affects_result=False, help="Folder to write.")
    percentile: float = option(50.0, minimum=0, maximum=100, help="Percentile of the intensities.")
    overwrite: bool = options.overwrite()


@takes_settings(BrightnessSettings)
def brightness(settings: BrightnessSettings) -> OutputResult:
    """Measure the brightness of images and record it in the manifest."""
    items = {image.path: (image.file, settings.percentile) for image in find_images(settings.inputs).images}
    with open_output(settings.output, "brightness", settings, results=[], overwrite=settings.overwrite) as output:
        process_items(output, items, _measure, keep=lambda item, value: f"brightness {value:.4g}")
    return OutputResult(output.path, output.manifest)


def _measure(file: Path, percentile: float) -> float:
    return float(np.percentile(read_image(file).array, percentile))
