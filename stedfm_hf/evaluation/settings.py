"""Settings of `evaluate knn`, `probe`, `retrieval` and `segmentation`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import option, settings

BASELINES = ("untrained", "histogram", "texture", "pixels", "log-spectrum", "imagenet", "chance")
"""Baselines of `knn` and `probe`."""
PATCH_BASELINES = ("untrained", "histogram", "pixels", "chance")
"""Baselines of `retrieval --patches`."""
RETRIEVAL_BASELINES = (
    "untrained",
    "histogram",
    "texture",
    "morphology",
    "pixels",
    "log-spectrum",
    "imagenet",
    "chance",
)
"""Baselines of `retrieval`."""
MASK_BASELINES = ("otsu", "wavelets", "forest", "constant", "chance")
"""Baselines of `segmentation`."""
KS = (1, 5, 20)
"""Default numbers of neighbours."""


@settings
class ComparisonSettings:
    """Compare models on labelled images."""

    dataset: str | Path = option(affects_result=False, help=options.LABELLED)
    output: str | Path = option(
        affects_result=False, metavar="DIR", help="Folder to write; report.html shows the results."
    )
    model: list[str] | None = option(
        None,
        affects_result=False,
        help="Folders or Hub ids of models, or `demo`; by default the official small model.",
    )
    baselines: list[str] = option(
        default_factory=lambda: [*BASELINES],
        affects_result=False,
        choices=(*BASELINES, "none"),
        help=f"Baselines to compare with: {', '.join(BASELINES)}, or none; by default all.",
    )
    split: str | None = option(None, affects_result=False, help="Split to read; by default all.")
    target: str | None = option(
        None, affects_result=False, help="Column of the labels, or key of the column metadata; by default label."
    )
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    source_pattern: str | None = options.source_pattern()
    seed: int = options.seed("the weights of the untrained network")
    device: str = options.device()
    precision: str = options.precision()
    batch_size: int = options.batch_size(32, "images")
    cache: str | Path | None = options.cache()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse `none` next to other baselines."""
        if "none" in self.baselines and len(self.baselines) > 1:
            raise UserError("baselines: none cannot be combined with other baselines. Remove none, or the others")


@settings
class KnnSettings(ComparisonSettings):
    """Evaluate k-nearest-neighbour classification.

    Every model is compared with baselines. If interrupted, run the same command again to resume.
    """

    k: list[int] = option(
        default_factory=lambda: [*KS], minimum=1, help="Numbers of neighbours that vote; by default 1, 5 and 20."
    )
    protocol: str = options.protocol("compares with the validation split, for each k from 3 to 10")
    zscore: bool = option(False, help="Standardise each feature over the train split (mean 0, variance 1).")
    leave_one_out: bool = option(False, help="Classify each image by the images of all other source images.")

    def check(self) -> None:
        """Refuse the reference protocol with leave-one-out."""
        super().check()
        if self.leave_one_out and self.protocol == "reference":
            raise UserError(
                "--protocol reference compares with the validation split; leave out --leave-one-out or --protocol"
            )


@settings
class ProbeSettings(ComparisonSettings):
    """Evaluate linear probes on frozen models.

    Each probe is trained with few labels and with all. Labels are classes, lists of classes (multilabel) or numbers
    (regression). Every model is compared with baselines. If interrupted, run the same command again to resume.
    """

    labels_per_class: list[str] | None = option(
        None, metavar="N|all", help="Numbers of labelled images per class; by default 10, 25, 50, 100 and all."
    )
    repeats: int = option(5, minimum=1, help="Number of random samples for each number of labelled images.")


@settings
class RetrievalSettings(ComparisonSettings):
    """Evaluate the retrieval of similar images.

    Every image is a query: all other images are ranked by cosine similarity, and those of its class are relevant. With
    --patches, patches of annotated images take the place of images. Every model is compared with baselines. If
    interrupted, run the same command again to resume.
    """

    baselines: list[str] = option(
        default_factory=lambda: [*RETRIEVAL_BASELINES],
        affects_result=False,
        choices=(*RETRIEVAL_BASELINES, "none"),
        help=f"Baselines to compare with: {', '.join(RETRIEVAL_BASELINES)}, or none; by default all.",
    )
    split: str | None = option(
        None,
        affects_result=False,
        help="Split to search in; by default test, or validation if there is no test, or all images without splits.",
    )
    k: list[int] = option(
        default_factory=lambda: [*KS],
        minimum=1,
        help="Numbers of best images for precision@k and mAP@k; by default 1, 5 and 20.",
    )
    protocol: str = options.protocol("ranks the query with the others, and reports AUROC and AUPR only")
    zscore: bool = option(False, help="Standardise each feature over all images or patches (mean 0, variance 1).")
    seed: int = options.seed("the weights of the untrained network, and of the sampled patches")
    patches: bool = option(
        False, help="Rank the patches of annotated images for patches that a class covers, instead of images."
    )
    queries_per_class: int = option(100, minimum=1, help="With --patches: largest number of queries of a class.")
    masks: str | Path | None = options.masks()
    classes: list[str] | None = options.classes()
    target_type: str | None = options.target_type()

    def check(self) -> None:
        """Refuse options of patches without patches, and labels of images with them."""
        super().check()
        if self.patches and self.target is not None:
            raise UserError("--patches uses masks, and --target is a column of labels; leave out one of them")
        if not self.patches and (self.masks, self.classes, self.target_type) != (None, None, None):
            raise UserError("--masks, --classes and --target-type are for annotated images; add --patches")


@settings
class MaskSettings:
    """Evaluate segmentation on annotated images.

    Pixels and objects are scored, and every model is compared with baselines. If interrupted, run the same command
    again to resume.
    """

    dataset: str | Path = option(affects_result=False, help=options.ANNOTATED)
    output: str | Path = option(
        affects_result=False, metavar="DIR", help="Folder to write; report.html shows the results."
    )
    model: list[str] = option(default_factory=list, affects_result=False, help="Folders or Hub ids of models.")
    split: str | None = option(
        None,
        affects_result=False,
        help="Split to score; by default test, or validation if there is no test. A data set without splits is "
        "split by a hash of the source image id.",
    )
    baselines: list[str] = option(
        default_factory=lambda: [*MASK_BASELINES],
        choices=(*MASK_BASELINES, "none"),
        help=f"Baselines to compare with: {', '.join(MASK_BASELINES)}, or none; by default all.",
    )
    folds: int | None = option(
        None, minimum=2, help="Number of folds to cross-validate the baselines over source images, without --model."
    )
    protocol: str = options.protocol(
        "computes IoU above a probability of 0.25, AUPR also in boxes around objects, and -1 for undefined scores"
    )
    threshold: float | None = option(
        None, help="Probability above which a pixel is predicted, for classes that may overlap; by default 0.5."
    )
    min_area_px: int = option(1, minimum=1, help="Area of the smallest object, in pixels.")
    masks: str | Path | None = options.masks()
    classes: list[str] | None = options.classes()
    target_type: str | None = options.target_type()
    series: str | int | None = options.series(
        "Series of each file to read; all reads every plane of a stack, with the same plane of its mask."
    )
    channel: str | int | None = options.channel()
    source_pattern: str | None = options.source_pattern()
    seed: int = options.seed("folds and baselines")
    device: str = options.device()
    precision: str = options.precision()
    batch_size: int = options.batch_size(8, "tiles")
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse combinations without anything to score."""
        if "none" in self.baselines and len(self.baselines) > 1:
            raise UserError("baselines: none cannot be combined with other baselines. Remove none, or the others")
        if self.folds is not None and self.model:
            raise UserError(
                "--folds cross-validates baselines only, because models are not trained; leave out --folds or --model"
            )
        if not self.model and self.baselines == ["none"]:
            raise UserError("there is nothing to score; set --model or --baselines")
        if not self.model and self.folds is None:
            raise UserError(
                "there is no model to evaluate; set --model, or cross-validate the baselines with --folds 5"
            )
