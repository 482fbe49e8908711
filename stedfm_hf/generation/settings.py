"""Settings of `stedfm generate` and `stedfm attribute`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import argument, option, settings

NOISES = ("inverted", "shared", "new")
SCHEDULERS = ("ddim", "dpm-solver++", "sde-dpm-solver++", "ddpm")
METHODS = ("auto", "boundary", "difference", "regression", "component")
PATTERN = "pattern"
PATHS = (PATTERN, "normal")
"""Ways of a walk through the embeddings."""


@settings
class AttributeFitSettings:
    """Fit the direction of an attribute in the space of embeddings.

    Classes give a boundary, numbers a regression. The direction is scored on source images that it was not fitted to;
    if it is not better than chance, a warning is printed.
    """

    dataset: str | Path = option(
        affects_result=False,
        help="Folder or Hub id of a data set, folder with one subfolder of images per class, or result folder of "
        "`stedfm cluster`, whose leaves are the classes.",
    )
    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder of the direction to write.")
    model: str | Path | None = option(
        None,
        affects_result=False,
        help="Folder of a generation pipeline, folder or Hub id of an encoder, or `demo`; by default the official "
        "small model. A walk needs that of its pipeline.",
    )
    method: str = option(
        "auto",
        choices=METHODS,
        help="Boundary between two classes, difference of their means, regression on a number, or principal "
        "component; auto is boundary for classes and regression for numbers.",
    )
    target: str | None = option(None, help="Column of the labels, or key of the column metadata; by default label.")
    classes: tuple[str, str] | None = option(
        None, metavar="FROM TO", help="Two classes: the direction leads from the first to the second."
    )
    component: int = option(1, minimum=1, help="Number of the principal component, for --method component.")
    standardise: bool = option(True, help="Standardise the columns of the embeddings first.")
    orthogonal_to: list[str] = option(
        default_factory=list,
        metavar="NAME|DIR",
        help="Attributes that a walk keeps: brightness, density (of bright spots), or folders of directions.",
    )
    path: str = option(
        PATTERN,
        choices=PATHS,
        help="Path of walks: as images differ on average (pattern), or the shortest way (normal).",
    )
    name: str | None = option(None, help="Name of the attribute in tables and figures; by default from the labels.")
    protocol: str = options.protocol("fits a linear support vector machine to embeddings that are not standardised")
    split: str | None = option(None, affects_result=False, help="Split to fit to; by default all images.")
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    source_pattern: str | None = options.source_pattern()
    device: str = options.device()
    batch_size: int = options.batch_size(32, "images")
    cache: str | Path | None = options.cache()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse options that contradict the method."""
        if self.component != 1 and self.method != "component":
            raise UserError("--component needs --method component; add it, or leave out --component")
        if self.protocol == options.REFERENCE and self.method not in ("auto", "boundary"):
            raise UserError("--protocol reference fits a boundary; leave out --method")
        if self.classes is not None and self.classes[0] == self.classes[1]:
            raise UserError(f"--classes names {self.classes[0]} twice; give two different classes")


def pipeline_option() -> Any:
    """Define the option for the generation pipeline."""
    return option(
        affects_result=False,
        help="Generation pipeline: folder of `stedfm pretrain generation` or `stedfm convert`, Hub id, or `demo`.",
    )


def steps_option() -> Any:
    """Define the option for the number of denoising steps."""
    return option(50, minimum=1, help="Number of denoising steps, at most those of the training.")


def guidance_option() -> Any:
    """Define the option for the strength of the condition."""
    return option(
        1.0,
        minimum=0,
        help="Strength of the condition; above 1, a pipeline that was trained with condition dropout exaggerates it.",
    )


@settings
class GenerateSettings:
    """Generate images that look like given images.

    Each image is embedded, and new images are generated from its embedding. Images larger than those of the network
    are cropped to their centre. If interrupted, run the same command again to resume.
    """

    inputs: options.Inputs = options.inputs()
    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder to write.")
    model: str | Path = pipeline_option()
    number: int = option(4, minimum=1, help="Number of images to generate from each image.")
    num_inference_steps: int = steps_option()
    guidance_scale: float = guidance_option()
    scheduler: str = option("ddim", choices=SCHEDULERS, help="Solver: ddim, dpm-solver++, sde-dpm-solver++ or ddpm.")
    protocol: str = options.protocol("takes 1,000 steps of ddpm")
    seed: int = options.seed("the noise")
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    device: str = options.device()
    batch_size: int = options.batch_size(16, "images")
    overwrite: bool = options.overwrite()


@settings
class AttributeWalkSettings:
    """Generate images along the direction of an attribute.

    The noise of each image is found by inversion and kept, so that only what the direction changes differs between
    the steps; how well the image itself is reconstructed is reported. Images larger than those of the network are
    cropped to their centre. If interrupted, run the same command again to resume.
    """

    inputs: options.Inputs = options.inputs()
    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder to write.")
    model: str | Path = pipeline_option()
    direction: str | Path = option(metavar="DIR", help="Folder of the direction, from `stedfm attribute fit`.")
    distances: list[float] = option(
        default_factory=list, help="Signed distances from the boundary to generate, instead of percentiles."
    )
    percentiles: list[float] = option(
        default_factory=lambda: [5.0, 25.0, 50.0, 75.0, 95.0],
        help="Percentiles of the distances of the fitted images to generate; by default 5, 25, 50, 75 and 95.",
    )
    of_class: str = option("all", metavar="CLASS", help="Class of the images whose percentiles are meant.")
    random_directions: int = option(
        0, minimum=0, help="Number of random directions to walk along as far, for comparison."
    )
    noise: str = option(
        "inverted",
        choices=NOISES,
        help="Noise to start from: that of the image (inverted), one for all steps (shared), or another in every step "
        "(new).",
    )
    num_inference_steps: int = steps_option()
    guidance_scale: float = guidance_option()
    protocol: str = options.protocol("starts every step from new noise")
    seed: int = options.seed("the noise and the random directions")
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    device: str = options.device()
    batch_size: int = options.batch_size(16, "images")
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse steps that are not defined."""
        if not self.distances and not self.percentiles:
            raise UserError("--percentiles is empty; give percentiles or --distances")


@settings
class AttributeMeasureSettings:
    """Measure how images change along walks.

    Brightness, bright spots, morphology features and resolution are measured in every image of the walks, with
    confidence intervals over source images, next to walks in random directions and to real images.
    """

    walks: str | Path = argument(affects_result=False, metavar="WALKS", help="Folder of `stedfm attribute walk`.")
    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder to write.")
    dataset: str | Path | None = option(
        None, affects_result=False, help=f"Real images to compare with. {options.LABELLED}"
    )
    target: str | None = option(None, help="Column of the labels, or key of the column metadata; by default label.")
    split: str | None = option(None, help="Split of the real images; by default all.")
    classes: list[str] = option(
        default_factory=list,
        metavar="CLASS",
        help="Classes of the real images to show; by default the two classes of the direction.",
    )
    classifier: str | Path | None = option(
        None,
        affects_result=False,
        help="Folder of `stedfm finetune classification`, or Hub id, whose predictions are measured, too.",
    )
    device: str = options.device()
    overwrite: bool = options.overwrite()
