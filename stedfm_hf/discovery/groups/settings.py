"""Settings of `cluster`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import argument, option, settings

FEATURES = ("embedding", "morphology")
FLAT = ("kmeans", "ward", "hdbscan")
MAPS = ("pca", "umap")


@settings
class ClusterSettings:
    """Split images into groups and write the tree as a page.

    A group is split only where held-out images show a valley of density between its parts; the labels are a consensus
    over resamples. If there is no valley, the result is one group, with the evidence. Source images are counted, not
    crops, because crops of one image are not independent.

    If interrupted, run the same command again to resume.
    """

    inputs: options.Inputs = argument(
        affects_result=False,
        multiple=True,
        metavar="INPUT",
        help="Folder of `stedfm index`, table of `stedfm embed`, or images: files, folders, globs or data sets.",
    )
    output: str | Path = option(
        Path("groups"), affects_result=False, metavar="DIR", help="Folder to write; report.html shows the tree."
    )
    features: str = option(
        "embedding", choices=FEATURES, help="Features to cluster: embeddings, or the 13 morphology features."
    )
    model: str | Path | None = options.model()
    masks: str | Path | None = option(
        None,
        metavar="DIR",
        group=options.INPUT,
        help="Folder of masks of the objects for morphology, named like their images; by default bright spots.",
    )
    annotations: str | Path | None = option(
        None,
        metavar="TABLE",
        group=options.INPUT,
        help="CSV or Parquet table with a column `path` and columns such as condition, to colour and test the groups.",
    )
    condition: str | None = option(
        None,
        metavar="COLUMN",
        help="Column whose enrichment in each node is tested; by default `condition`, or the folder of the images.",
    )
    source_pattern: str | None = options.source_pattern()
    partition: int | None = option(
        None,
        minimum=2,
        metavar="K",
        help="Describe the images by K groups instead of testing for groups; the result is marked as not significant.",
    )
    flat: list[str] = option(
        default_factory=list,
        choices=FLAT,
        help="Flat clusterings to add to the table: kmeans and ward with as many clusters as leaves, or hdbscan.",
    )
    compare: str | Path | None = option(
        None,
        metavar="DIR",
        help="Folder of another result of this command for the same images; compares both trees.",
    )
    map: str = option("pca", choices=MAPS, help="Map of the images in the figures; no map is used to find groups.")
    protocol: str = options.protocol("splits by the published rule, which always finds two clusters")
    seed: int = options.seed("resamples and starting centres")
    images: str | Path | None = option(
        None,
        affects_result=False,
        metavar="DIR",
        group=options.INPUT,
        help="Folder or data set of the images, if INPUT is a table or the images were moved.",
    )
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    device: str = options.device()
    batch_size: int = options.batch_size(32)
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse a partition by the published rule, and masks without morphology."""
        if self.masks is not None and self.features != "morphology":
            raise UserError("--masks needs --features morphology; add it, or leave out --masks")
        if self.partition is not None and self.protocol == options.REFERENCE:
            raise UserError("--partition and --protocol reference exclude each other; leave out one of them")
