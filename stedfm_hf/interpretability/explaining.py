"""The run of `explain`: load the models, and explain and record every image of every source."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from stedfm_hf.inference.loading import Loaded, load_classifier, load_encoder
from stedfm_hf.inference.preparation import Preparation
from stedfm_hf.inference.resuming import remove_maps
from stedfm_hf.inference.source_batches import SourceBatch
from stedfm_hf.inference.stepwise import process_sources, scaling_of, table_of
from stedfm_hf.inference.tables import TableParts, parts_name, read_table
from stedfm_hf.interpretability.building import Given, build_explainer
from stedfm_hf.interpretability.components import COMPONENTS
from stedfm_hf.interpretability.explainers import PcaExplainer, SimilarityExplainer
from stedfm_hf.interpretability.fields import Tiles, tiles_of
from stedfm_hf.interpretability.patch_pca import ARRAYS
from stedfm_hf.interpretability.report import write_report
from stedfm_hf.interpretability.result import REPORT, TABLE, ExplainResult
from stedfm_hf.interpretability.writing import KINDS, ExplanationWriter, explanation_schema
from stedfm_hf.runs import UserError, sha256_file
from stedfm_hf.runs.output import open_output


def explain_sources(given: Given) -> ExplainResult:
    """Explain the images of the sources (see `stedfm_hf.interpretability.explain`).

    Args:
        given: What the settings name.
    """
    settings, folder = given.settings, given.folder
    load = load_classifier if given.needs_logits else load_encoder
    loaded: Loaded = load(given.model, device=settings.device, precision=settings.precision)
    tiles = tiles_of(loaded, settings.tile_size, settings.tile_overlap, settings.batch_size)
    scaling = scaling_of(loaded, settings.normalization, settings.intensity_range)
    channel = loaded.processor.channel if settings.channel is None else settings.channel
    prepare = Preparation(loaded, settings.series, channel, scaling)
    explainer = build_explainer(given, loaded, tiles, prepare)
    schema, target = explanation_schema(explainer), folder / TABLE
    remove_results = partial(remove_maps, folder, kinds=KINDS)
    with open_output(
        folder,
        "explain",
        settings,
        results=[TABLE, REPORT],
        temporary=[parts_name(target), *COMPONENTS],
        resolved=scaling | {"channel": channel, "precision": loaded.precision} | _resolved(given, tiles, explainer),
        options={"device": str(loaded.model.device), "skipped_files": dict(given.skipped)},
        model=loaded.name,
        weights_sha256=loaded.weights_sha256,
        overwrite=settings.overwrite,
        remove_items=remove_results,
    ) as output:
        if isinstance(explainer, PcaExplainer):
            explainer.pca.save(folder)
        try:
            parts = TableParts(output, schema, target)
            batch = SourceBatch(
                parts.store,
                prepare,
                _nothing,
                lambda results: table_of([fact for fact, _ in results], schema, loaded, {}),
                settings.workers,
                annotate=ExplanationWriter(folder, explainer, given.method),
            )
            process_sources(parts, given.sources, batch, remove_results=remove_results)
        except torch.OutOfMemoryError as error:
            raise UserError("the GPU does not have enough memory; lower --batch-size or --tile-size") from error
        table = read_table(target, schema)
        if not output.finished:
            write_report(folder, output.manifest, table, explainer)
    return ExplainResult(folder, output.manifest, table)


def _resolved(given: Given, tiles: Tiles, explainer: Any) -> dict[str, Any]:
    """Return the settings that affect the result and that only the models and files decide."""
    found = {"method": given.method, "tile_size": tiles.tile_size, "tile_overlap": tiles.tile_overlap}
    if isinstance(explainer, SimilarityExplainer):
        found["compared_weights_sha256"] = explainer.other.weights_sha256
    if given.reference:
        found["reference_image_id"] = given.reference[0].source_id()
    if given.settings.components is not None:
        found["components_sha256"] = sha256_file(f"{given.settings.components}/{ARRAYS}")
    return found


def _nothing(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield an empty array for each image: `ExplanationWriter` computes everything, as it knows the facts."""
    return (np.empty(0) for _ in images)
