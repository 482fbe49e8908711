"""Options that are shared by commands: each is defined once and means the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stedfm_hf.runs.dask_cluster import check_cluster
from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.settings import argument, option
from stedfm_hf.runs.storage import as_path

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
BACKENDS = ("torch", "onnx", "openvino")
"""Libraries that compute a model: PyTorch, onnxruntime and OpenVINO."""
NORMALIZATIONS = ("percentile", "minmax", "fixed", "none")
TABLES = (".parquet", ".csv")
LABELLED = "Folder or Hub id of a data set, or folder with one subfolder of images per class."
ANNOTATED = (
    "Folder of images with masks (images/a.tif with masks/a.tif, or a_mask.tif), or folder or Hub id of a data set."
)
TARGET_TYPES = ("single_label", "multi_label", "soft")
REFERENCE = "reference"
PROTOCOLS = ("default", REFERENCE)
INPUT = "Input"
COMPUTATION = "Computation"
GENERAL = "General"
SERVER = "Server"
"""Headings of the help under which shared options are listed."""
Inputs = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A file, folder, glob or data set, or a list of them."""


def inputs() -> Any:
    """Define the argument for the input images."""
    return argument(
        affects_result=False,
        multiple=True,
        metavar="INPUT",
        storage=True,
        help="Image files, folders (searched recursively), globs, folders or Hub ids of data sets; also URLs of "
        "object stores, and of files on the web.",
    )


def model(default: Any = None) -> Any:
    """Define the option for the model; None selects the official one."""
    by_default = "; by default the official small model" if default is None else ""
    return option(default, affects_result=False, help=f"Folder of a model, Hub id, or `demo`{by_default}.")


def table(by_default: str) -> Any:
    """Define the option for the table to write; in Python, None writes none."""
    return option(
        None,
        affects_result=False,
        cli_default=Path(by_default),
        storage=True,
        help="Table to write, *.parquet or *.csv; in Python, None only returns it.",
    )


def check_table(output: str | os.PathLike[str] | None) -> None:
    """Refuse a table of an unknown format.

    Raises:
        UserError: If the suffix is not that of a table.
    """
    if output is not None and as_path(output).suffix.lower() not in TABLES:
        raise UserError(f"{output}: the table must be named {' or '.join(f'*{suffix}' for suffix in TABLES)}")


def tile_size() -> Any:
    """Define the option for the size of the tiles of large images."""
    return option(
        "auto",
        parse=parse_tile_size,
        metavar="N|auto|none",
        group=COMPUTATION,
        help="Size of a tile in pixels; auto is the crop size of the model, none processes each image whole.",
    )


def tile_overlap() -> Any:
    """Define the option for the overlap of the tiles of large images."""
    return option(
        None,
        minimum=0,
        group=COMPUTATION,
        help="Overlap of neighbouring tiles, in pixels; by default half a tile.",
    )


def device() -> Any:
    """Define the option for the device of the model."""
    return option(
        "auto",
        affects_result=False,
        choices=DEVICES,
        pattern=r"(cuda|mps):\d+",
        group=COMPUTATION,
        help="Device of the model; auto uses a GPU if there is one.",
    )


def devices() -> Any:
    """Define the option for the devices of a command that may use several."""
    return option(
        "auto",
        affects_result=False,
        choices=DEVICES,
        pattern=r"(cpu|cuda|mps)(:\d+)?(,(cpu|cuda|mps)(:\d+)?)*",
        group=COMPUTATION,
        help="Device of the model; auto uses all GPUs if there are any, cuda:0,cuda:2 those, one process for each.",
    )


def cluster() -> Any:
    """Define the option for the cluster that does the work."""
    return option(
        None,
        affects_result=False,
        metavar="local:N|tcp://HOST:PORT|FILE.yaml",
        check=check_cluster,
        group=COMPUTATION,
        help="Dask cluster that does the work: N processes, a running scheduler, or a file that describes jobs of "
        "Slurm, PBS or another batch system.",
    )


def precision(
    default: str = "float32", auto: str = "where the hardware computes it fast", *, backends: bool = False
) -> Any:
    """Define the option for the floating-point type of the model, or for its precision on a backend."""
    return option(
        default,
        choices=(*PRECISIONS, "int8") if backends else PRECISIONS,
        metavar="TYPE" if backends else None,
        group=COMPUTATION,
        help=f"Floating-point type of the model; auto is bfloat16 {auto}."
        + (" onnx has float32 and int8, openvino float32 and bfloat16." if backends else ""),
    )


def backend() -> Any:
    """Define the option for the library that computes the model."""
    return option(
        "torch",
        choices=BACKENDS,
        group=COMPUTATION,
        help="Library that computes the model: torch, or on the CPU onnx (onnxruntime) or openvino, for which the "
        "model is exported into the cache once.",
    )


def host(advice: str) -> Any:
    """Define the option for the address of a server."""
    return option("127.0.0.1", affects_result=False, group=SERVER, help=f"Address to listen at; {advice}.")


def port(default: int) -> Any:
    """Define the option for the port of a server."""
    return option(
        default, affects_result=False, minimum=0, maximum=65535, group=SERVER, help="Port; 0 selects a free one."
    )


def max_megapixels() -> Any:
    """Define the option for the largest image that a server takes."""
    return option(
        20.0, affects_result=False, minimum=0.0001, group=SERVER, help="Size of the largest image, in million pixels."
    )


def max_seconds() -> Any:
    """Define the option for the longest computation of a server."""
    return option(
        120.0, affects_result=False, minimum=0.01, group=SERVER, help="Time after which a computation is stopped."
    )


def max_waiting(default: int, minimum: int = 0) -> Any:
    """Define the option for the length of the queue of a server."""
    return option(
        default,
        affects_result=False,
        minimum=minimum,
        group=SERVER,
        help="Number of requests that may wait; more are refused.",
    )


def protocol(reference: str) -> Any:
    """Define the option for the protocol: the default, or that of the published code."""
    return option("default", choices=PROTOCOLS, help=f"Protocol to follow; reference (the authors' code) {reference}.")


def batch_size(default: int, unit: str = "tiles") -> Any:
    """Define the option for the number of tiles or images in a forward pass."""
    return option(
        default, affects_result=False, minimum=1, group=COMPUTATION, help=f"Number of {unit} in one forward pass."
    )


def workers(what: str) -> Any:
    """Define the option for the number of threads or processes."""
    return option(
        None,
        affects_result=False,
        minimum=1,
        group=COMPUTATION,
        help=f"Number of {what}; by default one per core, at most 8.",
    )


def source_pattern() -> Any:
    """Define the option for the pattern that finds the source image of a file."""
    return option(
        None,
        affects_result=False,
        group=INPUT,
        help="Regular expression for the part of a path that identifies the source image; by default each "
        "file is a source image.",
    )


def masks() -> Any:
    """Define the option for the folder of the masks."""
    return option(
        None,
        affects_result=False,
        group=INPUT,
        help="Folder of the masks, if --dataset is a folder of images without masks.",
    )


def classes() -> Any:
    """Define the option for the names of the classes of masks."""
    return option(
        None,
        group=INPUT,
        help="Names of the classes 1, 2, ... of label images, or of the planes, in order; or NUMBER=NAME each.",
    )


def target_type() -> Any:
    """Define the option for the kind of the masks."""
    return option(
        None,
        choices=TARGET_TYPES,
        group=INPUT,
        help="Kind of the masks: one class per pixel, overlapping classes, or votes; by default detected.",
    )


def series(help: str = "Series of each file to read; by default all.") -> Any:
    """Define the option for the series of a file."""
    return option(None, parse=index_or_name, metavar="NAME|INDEX", group=INPUT, help=help)


def channel() -> Any:
    """Define the option for the channel of an image."""
    return option(
        None,
        parse=index_or_name,
        metavar="NAME|INDEX",
        group=INPUT,
        help="Channel of each image to read; by default all.",
    )


def normalization() -> Any:
    """Define the option for the scaling of intensities."""
    return option(
        None,
        choices=NORMALIZATIONS,
        group=INPUT,
        help="Scaling of intensities to [0, 1]; by default that of the processor.",
    )


def intensity_range() -> Any:
    """Define the option for the intensities that become 0 and 1."""
    return option(
        None, metavar="LOW HIGH", group=INPUT, help="Intensities that become 0 and 1, for the normalization `fixed`."
    )


def seed(purpose: str, default: int | None = 0) -> Any:
    """Define the option for the random seed."""
    return option(default, minimum=0, help=f"Random seed of {purpose}.")


def cache() -> Any:
    """Define the option for the folder that features are cached in; None caches nothing."""
    return option(
        "auto",
        affects_result=False,
        metavar="DIR|auto|none",
        parse=lambda text: None if text == "none" else text,
        help="Folder to cache features in; auto is a folder in the user cache, none disables the cache.",
    )


def overwrite() -> Any:
    """Define the option that replaces an existing output."""
    return option(
        False, affects_result=False, group=GENERAL, help="Replace an existing output instead of resuming it."
    )


def index_or_name(text: str) -> str | int:
    """Convert a number to an index; other text is a name.

    Example:
        >>> index_or_name("2"), index_or_name("STED")
        (2, 'STED')
    """
    return int(text) if text.isdecimal() else text


def parse_tile_size(text: str) -> str | int | None:
    """Convert `auto`, `none` or a number of pixels.

    Raises:
        UserError: If the text is none of these.
    """
    if text in ("auto", "none"):
        return None if text == "none" else text
    if not text.isdecimal():
        raise UserError(f"tile size {text!r} is not a number of pixels, auto or none")
    return int(text)
