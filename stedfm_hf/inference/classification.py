"""`stedfm classify`: a table of classes, and maps of large fields."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stedfm_hf.data.sources import Source, check_separate, find_sources
from stedfm_hf.inference.devices import devices_of
from stedfm_hf.inference.settings import ClassifySettings
from stedfm_hf.runs import UserError
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.executors import Workers
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.storage import as_path
from stedfm_hf.runs.workers import open_workers
from stedfm_hf.weights.models import ModelSource, find_model

if TYPE_CHECKING:
    from stedfm_hf.inference.loading import Classifier
    from stedfm_hf.inference.maps import MapWriter
    from stedfm_hf.inference.tables import TableResult


@takes_settings(ClassifySettings)
def classify(settings: ClassifySettings) -> TableResult:
    """Classify images into a table with one row per image and channel.

    Images are found, read, scaled and embedded as by `embed`; the head of the model is applied to the embedding of the
    whole image. The pipeline `stedfm-image-classification` gives the same predictions.

    With `maps`, images larger than the crops of the model also get a map, `<path>.map<n>.tif` (float32, one channel
    per class, for ImageJ) and `.png`, where n counts the images of the file. Each cell of `map_stride` x `map_stride`
    pixels holds the prediction for the tile of the crop size (`image_size`) that is centred on it, moved inward at the
    border. The image is scaled once as a whole, not tile by tile.

    Returns:
        Table and manifest. Columns: `path`, `series`, `channel`, `height`, `width`, `pixel_size_nm` as for `embed`;
        `label`, the most probable class (single-label models); `p_<class>`, the probability of every class (float32;
        they sum to 1 for single-label models; `value_<name>` for a regression); with `maps` also `map`, the file of
        the map or null; `model`, `weights_sha256`. Failed files have no row and are listed by `manifest.failures()`.
        `manifest.options["trained_on"]` is the number of inputs on which the model was trained or selected, or null if
        the model has no record of them.

    Raises:
        UserError: For wrong arguments, a model without a classifier, no input images, or an output made with other
            settings.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from stedfm_hf import StedFmConfig, StedFmForImageClassification
        >>> folder = Path(tempfile.mkdtemp())
        >>> config = StedFmConfig(num_hidden_layers=1, id2label={0: "rings", 1: "fibres"})
        >>> StedFmForImageClassification(config).save_pretrained(folder / "model")
        >>> np.save(folder / "cell.npy", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
        >>> table = classify(folder / "cell.npy", model=folder / "model", device="cpu").table
        >>> table.column_names[6:9]
        ['label', 'p_rings', 'p_fibres']
    """
    if settings.output is None:
        with tempfile.TemporaryDirectory(prefix="stedfm-classify-") as folder:
            return _classify(replace(settings, output=Path(folder, "classes.parquet")))
    return _classify(settings)


def _classify(settings: ClassifySettings) -> TableResult:
    """Check the settings, open the cluster, and write the table of predictions and, if requested, the maps.

    Raises:
        UserError: For wrong arguments, no input images, or an output made with other settings.
    """
    target = as_path(str(settings.output))
    sources, skipped = find_sources(settings.inputs)
    check_output(target, "classify", is_folder=False, overwrite=settings.overwrite)
    if settings.maps is not None:
        check_separate("maps", Path(settings.maps), sources)
    source = find_model(settings.model, head="ForImageClassification")
    with open_cluster(settings.cluster) as cluster:
        return _write_table(settings, target, sources, skipped, source, cluster)


def _write_table(
    settings: ClassifySettings,
    target: Path,
    sources: Sequence[Source],
    skipped: Mapping[str, int],
    source: ModelSource,
    cluster: Workers | None,
) -> TableResult:
    """Load the model, classify the sources, and write the table and the maps."""
    # Errors up to here are reported at once: these modules import torch, which takes seconds.
    from stedfm_hf.inference.loading import load_classifier
    from stedfm_hf.inference.predictions import predict, prediction_columns, prediction_schema, prediction_table
    from stedfm_hf.inference.preparation import Preparation
    from stedfm_hf.inference.resuming import remove_maps
    from stedfm_hf.inference.source_batches import SourceBatch
    from stedfm_hf.inference.stepwise import check_tile_size, open_table, process_sources, scaling_of
    from stedfm_hf.inference.tables import TRAINED_ON, TableParts, TableResult, read_table
    from stedfm_hf.labels.training_sources import read_training_sources

    folder = None if settings.maps is None else Path(settings.maps)
    classifier = load_classifier(
        source, device=settings.device, precision=settings.precision, backend=settings.backend
    )
    check_tile_size(classifier, settings.tile_size)
    config, columns = classifier.model.config, prediction_columns(classifier)
    record = read_training_sources(source.location)
    trained_on = None if record is None else sum(each.source_id() in record for each in sources)
    scaling = scaling_of(classifier, settings.normalization, settings.intensity_range)
    channel = classifier.processor.channel if settings.channel is None else settings.channel
    map_writer = None if folder is None else _map_writer(folder, settings, classifier, list(columns.values()))
    labelled = config.target_type in ("single_label", "soft")
    schema = prediction_schema(list(columns), labelled=labelled, maps=map_writer is not None)
    resolved = scaling | {
        "channel": channel,
        "target_type": config.target_type,
        "predictions": list(columns),
        "map_stride": None if map_writer is None else map_writer.stride,
    }
    remove_results = None if folder is None else partial(remove_maps, folder, kinds=["map"])
    with (
        open_table(
            target, "classify", settings, classifier, resolved, skipped, {TRAINED_ON: trained_on}, remove_results
        ) as output,
        open_workers(cluster, devices=devices_of(settings.device, settings.backend)) as workers,
    ):
        parts = TableParts(output, schema)
        batch = SourceBatch(
            parts.store,
            Preparation(classifier, settings.series, channel, scaling),
            partial(predict, classifier, tile_size=settings.tile_size, batch_size=settings.batch_size),
            partial(prediction_table, schema=schema, classifier=classifier, columns=columns),
            settings.workers,
            annotate=map_writer,
        )
        process_sources(parts, sources, batch, workers=workers, remove_results=remove_results)
    return TableResult(target, output.manifest, read_table(target, schema))


def _map_writer(folder: Path, settings: ClassifySettings, classifier: Classifier, names: list[str]) -> MapWriter:
    """Make the folder of the maps, and return the function that writes the maps of an image into it."""
    from stedfm_hf.inference.maps import MapWriter  # plots: matplotlib takes a second to import
    from stedfm_hf.inference.predictions import predict

    tile_size = classifier.model.config.image_size
    stride = tile_size // 2 if settings.map_stride is None else settings.map_stride
    if not 1 <= stride <= tile_size:
        raise UserError(f"map stride {stride} is out of range: 1 to {tile_size} pixels, the tile size")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"maps {folder}: the folder cannot be made ({error.strerror}); choose another") from error
    # A tile of a map has the crop size of the model: `tile_size` of the settings does not apply.
    predict_tiles = partial(predict, classifier, tile_size=None, batch_size=settings.batch_size)
    limits = None if classifier.model.config.target_type == "regression" else (0.0, 1.0)
    return MapWriter(folder, predict_tiles, names, tile_size, stride, limits)
