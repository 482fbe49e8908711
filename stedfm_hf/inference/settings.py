"""Settings of `embed`, `classify` and `segment`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.exports.backends import check_backend
from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import option, settings

POOLINGS = ("avg", "token", "patch")


@settings
class EmbedSettings:
    """Embed images into a table: one row per image and channel.

    If interrupted, run the same command again to resume. Unreadable files are skipped and listed; the exit status is
    then 1.
    """

    inputs: options.Inputs = options.inputs()
    output: str | Path | None = options.table("embeddings.parquet")
    model: str | Path | None = options.model()
    pooling: str = option(
        "avg",
        choices=POOLINGS,
        help="Pooling of the tokens: avg (mean of the patches), token (class token) or patch (one row per patch).",
    )
    precision: str = options.precision(backends=True)
    device: str = options.devices()
    cluster: str | None = options.cluster()
    backend: str = options.backend()
    tile_size: str | int | None = options.tile_size()
    batch_size: int = options.batch_size(32)
    workers: int | None = options.workers("threads that read images")
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    normalization: str | None = options.normalization()
    intensity_range: tuple[float, float] | None = options.intensity_range()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse a table of an unknown format, and a backend that cannot run."""
        options.check_table(self.output)
        check_backend(self.backend, self.precision, self.device)


@settings
class ClassifySettings:
    """Classify images into a table, large fields into maps.

    If interrupted, run the same command again to resume. Unreadable files are skipped and listed; the exit status is
    then 1.
    """

    inputs: options.Inputs = options.inputs()
    model: str | Path = option(affects_result=False, help="Folder of `stedfm finetune classification`, or Hub id.")
    output: str | Path | None = options.table("classes.parquet")
    maps: str | Path | None = option(
        None, metavar="DIR", help="Folder for maps of the images that are larger than the crops of the model."
    )
    map_stride: int | None = option(
        None, minimum=1, help="Size of a cell of the map, in pixels; by default half the crop size of the model."
    )
    precision: str = options.precision(backends=True)
    device: str = options.devices()
    cluster: str | None = options.cluster()
    backend: str = options.backend()
    tile_size: str | int | None = options.tile_size()
    batch_size: int = options.batch_size(32)
    workers: int | None = options.workers("threads that read images")
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    normalization: str | None = options.normalization()
    intensity_range: tuple[float, float] | None = options.intensity_range()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse a table of an unknown format, a stride without a folder of maps, and a backend that cannot run."""
        options.check_table(self.output)
        check_backend(self.backend, self.precision, self.device)
        if self.maps is None and self.map_stride is not None:
            raise UserError("--map-stride needs --maps; give both")


@settings
class SegmentSettings:
    """Segment fields of any size into masks and a table of objects.

    If interrupted, run the same command again to resume. Unreadable files are skipped and listed; the exit status is
    then 1.
    """

    inputs: options.Inputs = options.inputs()
    output: str | Path = option(
        affects_result=False, cli_default=Path("segmented"), metavar="DIR", storage=True, help="Folder to write."
    )
    model: str | Path = option(affects_result=False, help="Folder of `stedfm finetune segmentation`, or Hub id.")
    threshold: float | None = option(
        None, help="Probability above which a pixel belongs to a class, where classes may overlap; by default 0.5."
    )
    min_area_px: int = option(1, minimum=1, help="Area of the smallest object, in pixels.")
    tile_size: int | None = option(None, help="Size of a tile in pixels; by default the crop size of the model.")
    tile_overlap: int | None = option(
        None, help="Overlap of neighbouring tiles, in pixels; by default a quarter of a tile."
    )
    batch_size: int = options.batch_size(8, "tiles")
    probabilities: str | None = option(
        "float32",
        choices=("float32", "uint8"),
        metavar="float32|uint8|none",
        parse=lambda text: None if text == "none" else text,
        help="Type of the probability maps (in uint8, 255 is 1), or none.",
    )
    format: str = option(
        "tiff",
        choices=("tiff", "ome-tiff", "ome-zarr"),
        help="Format of the masks and probability maps; tiff is for ImageJ.",
    )
    overlay: bool = option(True, help="Write a PNG of every field with the classes in colour.")
    precision: str = options.precision(backends=True)
    device: str = options.devices()
    cluster: str | None = options.cluster()
    backend: str = options.backend()
    series: str | int | None = option(
        None,
        parse=options.index_or_name,
        metavar="NAME|INDEX",
        group=options.INPUT,
        help="Series of each file to read; all reads every series and every plane of a stack.",
    )
    channel: str | int | None = options.channel()
    normalization: str | None = options.normalization()
    intensity_range: tuple[float, float] | None = options.intensity_range()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse a backend that cannot run."""
        check_backend(self.backend, self.precision, self.device)
