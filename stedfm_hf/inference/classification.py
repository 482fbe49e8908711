"""Classification of files, folders and datasets into a table, and into maps of large fields."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.data.sources import ImageFile, Source, find_sources
from stedfm_hf.inference.loading import Classifier, load_classifier
from stedfm_hf.inference.resuming import remove_maps
from stedfm_hf.inference.stepwise import (
    Fact,
    Preparation,
    check_batch_size,
    check_tile,
    chosen_scaling,
    table_of,
    work_through,
)
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL, Parts, read_table
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import Manifest, UserError


@dataclass(frozen=True)
class ClassifyResult:
    """What `classify` made.

    Attributes:
        table: The rows, see `classify`.
        manifest: Settings, versions and the status of every item.
    """

    table: pa.Table
    manifest: Manifest


def classify(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str | Path,
    output: str | os.PathLike[str] | None = None,
    maps: str | os.PathLike[str] | None = None,
    map_stride: int | None = None,
    precision: str = "float32",
    device: str = "auto",
    tile: int | str | None = "auto",
    batch_size: int = 32,
    workers: int | None = None,
    series: str | int | None = None,
    channel: str | int | None = None,
    normalization: str | None = None,
    intensity_range: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> ClassifyResult:
    """Classify images into a table with one row per image and channel.

    Images are found, read, scaled and embedded as by `embed`: the vector of an image is the mean over all of it, and
    the head of the model answers once for that. The pipeline `stedfm-image-classification` gives the same answer.

    With `maps`, images larger than the model's crops get a map as well. It has a value for every cell of
    `map_stride` x `map_stride` pixels: the answer for the window of the model's crop size (`image_size`) centred on
    the cell, moved inward at the border. The image is scaled once as a whole, not each window for itself.

    Args:
        inputs: Image files, folders (searched recursively) and globs; folders or Hub ids of datasets.
        model: A folder written by `stedfm finetune classification`, or a Hub id.
        output: The `.parquet` or `.csv` file to write, with `<output>.manifest.json` beside it; None only returns
            the table.
        maps: Folder for the maps: `<path>.map<n>.tif` (float32, a channel per class, as ImageJ opens it) and `.png`,
            n counting the images of the file. It may not lie in a folder of the inputs.
        map_stride: Pixels between two windows; by default half a window.
        precision: `"float32"`, `"bfloat16"`, `"float16"` or `"auto"`, see `load_encoder`.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"mps"`.
        tile: Side of a tile in pixels; `"auto"` is the model's `image_size`, None takes every image whole.
        batch_size: Tiles or windows in one forward pass.
        workers: Threads that read and scale images; by default as many as there are cores, at most 8.
        series: Name or index of the series to take from every file; None takes all.
        channel: Name or index of the channel to take from every image; None takes all.
        normalization: Overrides that of the model's processor.
        intensity_range: Lower and upper intensity for `normalization="fixed"`.
        overwrite: Whether an existing output is begun anew.

    Returns:
        The table and the manifest. Columns: `path`, `series`, `channel`, `height`, `width`, `pixel_size_nm` as
        `embed` has them; `label`, the most probable class (models of one label); `p_<class>` for every class, float32,
        which sum to 1 for models of one label and are each in [0, 1] for models of several (`value_<name>` for
        regression); with `maps` also `map`, the file in that folder or null; `model`, `weights_sha256`. Files that
        failed have no row; `manifest.failures()` names them.

    Raises:
        UserError: For wrong arguments, a model without a classifier, nothing to classify, or an output begun with
            other settings.

    Example:
        >>> import tempfile
        >>> from stedfm_hf import StedFmConfig, StedFmForImageClassification
        >>> folder = Path(tempfile.mkdtemp())
        >>> config = StedFmConfig(num_hidden_layers=1, id2label={0: "rings", 1: "fibres"})
        >>> StedFmForImageClassification(config).save_pretrained(folder / "model")
        >>> np.save(folder / "cell.npy", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
        >>> table = classify(folder / "cell.npy", model=folder / "model", device="cpu").table
        >>> table.column_names[6:9]
        ['label', 'p_rings', 'p_fibres']
    """
    check_batch_size(batch_size)
    inputs = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    sources, skipped = find_sources(inputs)
    classifier = load_classifier(model, device=device, precision=precision)
    check_tile(classifier, tile)
    config = classifier.model.config
    columns = answer_columns(classifier)
    scaling = chosen_scaling(classifier, normalization, intensity_range)
    channel = classifier.processor.channel if channel is None else channel
    stride = _checked_stride(maps, map_stride, config.image_size)
    manifest = Manifest(
        "classify",
        settings={
            "target_type": config.target_type,
            "answers": list(columns),
            "precision": str(classifier.model.dtype).removeprefix("torch."),
            "tile": tile,
            "series": series,
            "channel": channel,
            "maps": maps,
            "map_stride": None if maps is None else stride,
            **scaling,
        },
        options={"device": str(classifier.model.device), "batch_size": batch_size, "skipped_files": skipped},
        model=classifier.name,
        weights_sha256=classifier.weights_sha256,
    )
    compute = partial(_answers, classifier.model, tile=tile, batch_size=batch_size)
    look: Callable[[Fact, np.ndarray], Fact] | None = None
    forget: Callable[[Collection[str]], None] | None = None
    if maps is not None:
        from stedfm_hf.inference.maps import MapWriter  # draws: matplotlib takes a second to import

        folder = _map_folder(Path(maps), inputs, sources)
        names, limits = list(columns.values()), None if config.target_type == "regression" else (0.0, 1.0)
        # A window is a crop as the model was trained on: never tiled, whatever `tile` says.
        of_windows = partial(_answers, classifier.model, tile=None, batch_size=batch_size)
        look = MapWriter(folder, of_windows, names, config.image_size, stride, limits)
        forget = partial(remove_maps, folder, kinds=["map"])
    labelled = config.target_type in ("single_label", "soft")
    schema = pa.schema(
        [
            *OF_IMAGE,
            *([("label", pa.string())] if labelled else []),
            *((column, pa.float32()) for column in columns),
            *([("map", pa.string())] if look else []),
            *OF_MODEL,
        ]
    )

    def tabulate(results: list[tuple[Fact, np.ndarray]]) -> pa.Table:
        answers = np.array([answer for _, answer in results], dtype=np.float32).reshape(-1, len(columns))
        filled: dict[str, Any] = {column: answers[:, number] for number, column in enumerate(columns)}
        if labelled:
            names = list(columns.values())
            filled["label"] = [names[number] for number in answers.argmax(axis=1)]
        return table_of([fact for fact, _ in results], schema, classifier, filled)

    with ExitStack() as stack:
        if output is None:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stedfm-classify-")), "table.parquet")
        parts = Parts(Path(output), manifest, schema, overwrite=overwrite)
        prepare = Preparation(classifier, series, channel, scaling)
        work_through(parts, sources, prepare, compute, tabulate, workers=workers, look=look, forget=forget)
        return ClassifyResult(read_table(parts.target, schema), manifest)


def answer_columns(classifier: Classifier) -> dict[str, str]:
    """Columns for what the model answers, and the names of its labels: `p_<label>`, or `value_<label>` of regression.

    Raises:
        UserError: If labels have no name, or two have the same.
    """
    config = classifier.model.config
    if sorted(config.id2label) != list(range(config.num_labels)):
        raise UserError(
            f"model {classifier.name}: id2label in its config.json names the labels {sorted(config.id2label)}; "
            f"it must name 0 to {config.num_labels - 1}"
        )
    names = [str(config.id2label[number]) for number in range(config.num_labels)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            f"model {classifier.name}: several labels are called {twice[0]!r} and would share a column; "
            "give each a name of its own in id2label of its config.json"
        )
    prefix = "value_" if config.target_type == "regression" else "p_"
    return {f"{prefix}{name}": name for name in names}


def _answers(
    model: StedFmForImageClassification, images: Iterable[np.ndarray], *, tile: int | str | None, batch_size: int
) -> Iterator[np.ndarray]:
    """What the head says of each image, (C,) float32: probabilities, or values for regression.

    One image at a time, so that an answer does not depend on its neighbours by a rounding.
    """
    kind = model.config.target_type
    for vector in encode_images(model, images, pooling=model.config.pooling, tile=tile, batch_size=batch_size):
        with torch.inference_mode():
            logits = model.classify(torch.from_numpy(vector[None]).to(model.device, model.dtype))[0].float()
            if kind != "regression":
                logits = logits.sigmoid() if kind == "multi_label" else logits.softmax(dim=0)
            yield logits.cpu().numpy()


def _checked_stride(maps: str | os.PathLike[str] | None, stride: int | None, window: int) -> int:
    if maps is None and stride is not None:
        raise UserError("a map stride is given but no folder for maps; give both")
    stride = window // 2 if stride is None else stride
    if not 1 <= stride <= window:
        raise UserError(f"map stride {stride} is out of range: 1 to {window} pixels, the side of a window")
    return stride


def _map_folder(folder: Path, inputs: Iterable[str | os.PathLike[str]], sources: Iterable[Source]) -> Path:
    """Make the folder of the maps, which must not be taken for images when the command is given again."""
    here = folder.resolve()
    searched = [Path(one).resolve() for one in inputs if Path(one).is_dir()]
    files = [source.file.resolve() for source in sources if isinstance(source, ImageFile)]
    if any(here.is_relative_to(one) for one in searched) or any(file.is_relative_to(here) for file in files):
        raise UserError(f"maps {folder}: lies among the images, and maps would be classified; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"maps {folder}: the folder cannot be made ({error.strerror}); choose another") from error
    return folder
