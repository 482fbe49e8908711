"""Settings of `evaluate knn`, `probe`, `retrieval`, `robustness`, `segmentation` and `weights`."""

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
ROBUSTNESS_BASELINES = ("untrained", "histogram", "texture", "chance")
"""Default baselines of `robustness`."""
FAMILIES = (
    "photons",
    "background",
    "offset",
    "psf",
    "drift",
    "pixel-size",
    "gain",
    "gamma",
    "saturation",
    "bleaching",
    "rotation",
    "flip",
)
"""Families of acquisition changes of `robustness`."""
REFERENCE_FAMILIES = ("geometric", "poisson", "gaussian-noise", "gaussian-blur", "mixed")
"""Families of `robustness --protocol reference`; `contrast` is only evaluated on request."""
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
    cluster: str | None = options.cluster()
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
        if self.patches and self.cluster is not None:
            raise UserError("--patches embeds the images in one process; leave out --cluster")


@settings
class RobustnessSettings(ComparisonSettings):
    """Evaluate models under changes of the acquisition.

    Probes are trained on unchanged images, and applied to test images with fewer photons, more background, a wider
    point spread function and other changes, each from none to strong. The report shows up to which level, in counts or
    nm, the accuracy stays within 5 points, next to baselines. If interrupted, run the same command again to resume.
    """

    families: list[str] | None = option(
        None,
        choices=(*FAMILIES, *REFERENCE_FAMILIES, "contrast", "none"),
        help=f"Families of changes: {', '.join(FAMILIES)}, or none; by default all.",
    )
    family_column: list[str] = option(
        default_factory=list,
        metavar="COLUMN",
        help="Columns of the data set, or keys of the column metadata, whose values are real batches, such as day.",
    )
    annotations: str | Path | None = option(
        None,
        affects_result=False,
        metavar="TABLE",
        help="CSV or Parquet table with the columns of --family-column and a column path: files of a folder, or "
        "source image ids of a data set.",
    )
    protocol: str = options.protocol(
        f"changes scaled images ({', '.join(REFERENCE_FAMILIES)}) and fits numbers by ridge regression with alpha 1"
    )
    classifier: str = option(
        "probe", choices=("probe", "knn"), help="Classifier of the embeddings: a linear probe, or nearest neighbours."
    )
    k: int = option(5, minimum=1, help="Number of neighbours that vote, with --classifier knn.")
    repeats: int = option(3, minimum=1, help="Number of repetitions, each with other noise and other training images.")
    peak_counts: float | None = option(
        None,
        minimum=1,
        metavar="N",
        help="Photon counts at the brightest pixel of an image; by default whole numbers are counts, and other images "
        "have 50.",
    )
    psf_fwhm_nm: float = option(
        60.0, minimum=1, help="Full width at half maximum of the point spread function of the images, in nm."
    )
    pixel_size_nm: float | None = option(
        None, minimum=0.01, help="Pixel size of images whose file has none, in nm; without it, lengths are in pixels."
    )
    baselines: list[str] = option(
        default_factory=lambda: [*ROBUSTNESS_BASELINES],
        affects_result=False,
        choices=(*BASELINES, "none"),
        help=f"Baselines to compare with: {', '.join(BASELINES)}, or none; by default "
        f"{', '.join(ROBUSTNESS_BASELINES)}.",
    )

    def check(self) -> None:
        """Refuse families of the other protocol, and nothing to do."""
        super().check()
        families = self.families or []
        if "none" in families and len(families) > 1:
            raise UserError("families: none cannot be combined with other families. Remove none, or the others")
        if families == ["none"] and not self.family_column:
            raise UserError("there is nothing to evaluate; set --families or --family-column")
        if self.annotations and not self.family_column:
            raise UserError("annotations are only read with --family-column; name the columns of the table there")
        known = (*REFERENCE_FAMILIES, "contrast") if self.protocol == "reference" else FAMILIES
        if wrong := [name for name in families if name not in (*known, "none")]:
            raise UserError(
                f"family {wrong[0]} does not belong to the protocol {self.protocol}; choose from {', '.join(known)}, "
                "or change --protocol"
            )


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
    zero_shot: list[str] = option(
        default_factory=list,
        affects_result=False,
        metavar="MODEL",
        help="Folders or Hub ids of encoders, or `demo`: scores the foreground masks that they give without training, "
        "from clusters of patches and from attention.",
    )
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
        if not self.model and not self.zero_shot and self.baselines == ["none"]:
            raise UserError("there is nothing to score; set --model, --zero-shot or --baselines")
        if not self.model and not self.zero_shot and self.folds is None:
            raise UserError(
                "there is no model to evaluate; set --model or --zero-shot, or cross-validate the baselines with "
                "--folds 5"
            )


@settings
class WeightsSettings:
    """Compare the weights of models, tensor by tensor.

    Tensors with the same name and shape are compared: the Wasserstein distance between the distributions of their
    values, which ignores positions, and the cosine distance. Heads are left out. No image is needed.
    """

    model: list[str] = option(
        affects_result=False, metavar="MODEL", help="Two or more folders or Hub ids of models, or `demo`."
    )
    output: str | Path = option(
        affects_result=False, metavar="DIR", help="Folder to write; report.html shows the results."
    )
    baselines: list[str] = option(
        default_factory=lambda: ["untrained"],
        choices=("untrained", "none"),
        help="Network to compare with: untrained (the architecture of the first model with random weights), or none; "
        "by default untrained.",
    )
    seed: int = options.seed("the weights of the untrained network")
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse a comparison of fewer than two networks."""
        if "none" in self.baselines and len(self.baselines) > 1:
            raise UserError("baselines: none cannot be combined with other baselines. Remove none, or the others")
        if len(self.model) + (self.baselines != ["none"]) < 2:
            raise UserError("there is nothing to compare with; name another --model, or use --baselines untrained")
        if doubled := [name for name in self.model if self.model.count(name) > 1]:
            raise UserError(f"model {doubled[0]} is named twice; name every model once")
