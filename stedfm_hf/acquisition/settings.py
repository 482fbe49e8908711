"""Settings of `finder fit`, `find` and `evaluate find`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stedfm_hf.exports.backends import check_backend
from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.settings import option, settings

METHODS = ("templates", "prototypes", "logistic", "forest")
REFERENCE_METHODS = ("templates", "forest")
"""Methods of the published code."""
FIND_BASELINES = (
    "untrained",
    "intensity",
    "otsu",
    "template-matching",
    "random-patches",
    "chance",
    "coarsened",
)
"""Baselines of `evaluate find`."""
REFERENCE_BASELINES = ("intensity", "random-patches", "coarsened")
"""Baselines of the published code."""
DEFAULT_METHODS = ("templates", "prototypes", "logistic")
"""Methods that `evaluate find` fits by default."""


@settings
class FitFinderSettings:
    """Fit a finder of structures to annotated images or to clicks.

    The finder is a folder, which `stedfm find --finder` applies to fields.
    """

    dataset: str | Path = option(
        affects_result=False, help=f"{options.ANNOTATED} With --clicks: folder of images without masks."
    )
    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder of the finder to write.")
    method: str = option(
        "templates",
        choices=METHODS,
        help="Method: templates (similarity to the most similar annotated object), prototypes (similarity to the mean "
        "of a class, compared with the other classes and the background), logistic (logistic regression) or forest "
        "(random forest).",
    )
    clicks: str | Path | None = option(
        None,
        affects_result=False,
        metavar="FILE",
        help="CSV table of clicks instead of masks, with the columns path (of the image, in --dataset), y_px, x_px "
        "and class, which may be left out; the class background is the background.",
    )
    click_radius_px: float | None = option(
        None, minimum=0.5, help="Radius of the disc that a click marks, in pixels; by default half a patch."
    )
    model: str | Path | None = options.model()
    masks: str | Path | None = options.masks()
    classes: list[str] | None = options.classes()
    target_type: str | None = options.target_type()
    rotations: bool = option(True, help="Also use the images rotated by 90, 180 and 270 degrees.")
    protocol: str = options.protocol(
        "averages the raw tokens of each template, and fits the forest to classes without a background"
    )
    source_pattern: str | None = options.source_pattern()
    tile_size: str | int | None = options.tile_size()
    tile_overlap: int | None = options.tile_overlap()
    batch_size: int = options.batch_size(8)
    precision: str = options.precision()
    device: str = options.device()
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    normalization: str | None = options.normalization()
    intensity_range: tuple[float, float] | None = options.intensity_range()
    seed: int = options.seed("the forest, and of the patches that are used of large data sets", 42)
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse options that exclude each other."""
        if self.clicks is not None and (self.masks is not None or self.classes is not None):
            raise UserError("--clicks replaces masks, and names the classes; remove --masks and --classes")
        if self.clicks is None and self.click_radius_px is not None:
            raise UserError("--click-radius-px needs --clicks; give both")
        if self.protocol == REFERENCE:
            _check_reference_methods([self.method])
            _check_reference_scaling(self.normalization, self.intensity_range)


@settings
class FindSettings:
    """Find structures in fields, and the regions to image next.

    If interrupted, run the same command again to resume. Unreadable files are skipped and listed; the exit status is
    then 1.
    """

    inputs: options.Inputs = options.inputs()
    finder: str | Path = option(affects_result=False, metavar="DIR", help="Folder of `stedfm finder fit`.")
    output: str | Path = option(
        affects_result=False, cli_default=Path("found"), metavar="DIR", help="Folder to write."
    )
    count: int = option(25, minimum=1, help="Largest number of regions of a class in a field.")
    min_score: float | None = option(
        None, help="Smallest score of the centre of a region; by default that of the finder."
    )
    region_size_px: float | None = option(
        None, minimum=1, help="Height and width of a region, in pixels; by default the crop size of the model."
    )
    region_size_um: float | None = option(None, minimum=0.001, help="Height and width of a region, in micrometres.")
    min_distance_px: float | None = option(
        None,
        minimum=1,
        help="Smallest distance between the centres of two regions along one of the axes, in pixels; by default the "
        "size of a region, so that regions do not overlap.",
    )
    stage: str | Path | None = option(
        None,
        affects_result=False,
        metavar="FILE",
        help="JSON file with the 2 x 3 matrix that maps x and y in pixels to the stage in micrometres, or with one "
        "matrix for each path.",
    )
    protocol: str | None = option(
        None,
        choices=options.PROTOCOLS,
        help="Protocol to follow; reference (the authors' code) makes the published score maps. By default that of "
        "the finder, which must agree.",
    )
    model: str | Path | None = option(
        None,
        affects_result=False,
        help="Folder or Hub id of the model of the finder; by default where it was when the finder was fitted.",
    )
    tile_size: str | int | None = options.tile_size()
    tile_overlap: int | None = options.tile_overlap()
    batch_size: int = options.batch_size(8)
    precision: str = options.precision(backends=True)
    device: str = options.devices()
    cluster: str | None = options.cluster()
    backend: str = options.backend()
    workers: int | None = options.workers("threads that read images")
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse options that exclude each other, and a backend that cannot run."""
        if self.region_size_px is not None and self.region_size_um is not None:
            raise UserError("--region-size-px and --region-size-um both give the size of a region; give one of them")
        check_backend(self.backend, self.precision, self.device)


@settings
class EvaluateFindSettings:
    """Evaluate score maps and regions of finders on annotated images.

    Finders are fitted in folds of source images, so that no finder is evaluated on images it was fitted to. If
    interrupted, run the same command again to resume.
    """

    dataset: str | Path = option(affects_result=False, help=options.ANNOTATED)
    output: str | Path = option(
        affects_result=False, metavar="DIR", help="Folder to write; report.html shows the results."
    )
    method: list[str] | None = option(
        None,
        choices=METHODS,
        help="Methods of the finders to fit: templates, prototypes, logistic, forest; by default the first three, or "
        "templates with --protocol reference, or none with --finder.",
    )
    finder: list[str] = option(
        default_factory=list,
        affects_result=False,
        metavar="DIR",
        help="Folders of `stedfm finder fit` to evaluate; images that they were fitted to are left out.",
    )
    model: list[str] | None = option(
        None,
        affects_result=False,
        help="Folders or Hub ids of models that the finders are fitted with, or `demo`; by default the official small "
        "model.",
    )
    baselines: list[str] | None = option(
        None,
        choices=(*FIND_BASELINES, "none"),
        help=f"Baselines to compare with: {', '.join(FIND_BASELINES)}, or none; by default all, or those of the "
        "published code with --protocol reference.",
    )
    folds: int | None = option(
        None,
        minimum=2,
        help="Number of folds of source images; by default 5, or one per source image if there are fewer.",
    )
    split: str | None = option(
        None,
        affects_result=False,
        help="Split to evaluate; by default test, or validation if there is no test. Of a data set without splits, "
        "all images are evaluated.",
    )
    protocol: str = options.protocol(
        "computes curves of pixels, interpolated at 100 values of recall and averaged over images"
    )
    region_size_px: float | None = option(
        None, minimum=1, help="Height and width of a region, in pixels; by default four patches."
    )
    min_area_px: int = option(1, minimum=1, help="Area of the smallest annotated object, in pixels.")
    rotations: bool = option(True, help="Also fit to the images rotated by 90, 180 and 270 degrees.")
    masks: str | Path | None = options.masks()
    classes: list[str] | None = options.classes()
    target_type: str | None = options.target_type()
    source_pattern: str | None = options.source_pattern()
    tile_size: str | int | None = options.tile_size()
    tile_overlap: int | None = options.tile_overlap()
    batch_size: int = options.batch_size(8)
    precision: str = options.precision()
    device: str = options.device()
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    normalization: str | None = options.normalization()
    intensity_range: tuple[float, float] | None = options.intensity_range()
    seed: int = options.seed("folds, forests and baselines", 42)
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse options that exclude each other."""
        if self.baselines is not None and "none" in self.baselines and len(self.baselines) > 1:
            raise UserError("baselines: none cannot be combined with other baselines. Remove none, or the others")
        if self.finder and self.model is not None and self.method is None:
            raise UserError("--model is the model of the finders to fit; name their --method, too")
        if self.protocol == REFERENCE:
            if self.finder:
                raise UserError("--protocol reference fits its finders; remove --finder")
            _check_reference_methods(self.methods)
            if wrong := [name for name in self.baseline_names if name not in REFERENCE_BASELINES]:
                raise UserError(
                    f"--protocol reference has no baseline {wrong[0]}; choose from {', '.join(REFERENCE_BASELINES)}"
                )
            _check_reference_scaling(self.normalization, self.intensity_range)

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of the finders to fit."""
        if self.method is not None:
            return tuple(dict.fromkeys(self.method))
        if self.finder:
            return ()
        return ("templates",) if self.protocol == REFERENCE else DEFAULT_METHODS

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """Baselines to compare with."""
        if self.baselines is None:
            return REFERENCE_BASELINES if self.protocol == REFERENCE else FIND_BASELINES
        return () if self.baselines == ["none"] else tuple(dict.fromkeys(self.baselines))


def _check_reference_methods(methods: Iterable[str]) -> None:
    """Refuse a method that the reference protocol does not have."""
    if wrong := [name for name in methods if name not in REFERENCE_METHODS]:
        raise UserError(f"--protocol reference has no method {wrong[0]}; choose {' or '.join(REFERENCE_METHODS)}")


def _check_reference_scaling(normalization: str | None, intensity_range: tuple[float, float] | None) -> None:
    """Refuse a scaling together with the reference protocol, which has one."""
    if normalization is not None or intensity_range is not None:
        raise UserError(
            "--protocol reference scales each image from its minimum to its maximum; remove --normalization and "
            "--intensity-range"
        )
