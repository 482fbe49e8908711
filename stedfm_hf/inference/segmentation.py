"""Segmentation of whole fields of any size: maps, pictures and a table of objects, in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stedfm_hf.data.sources import check_separate, find_sources
from stedfm_hf.inference.settings import SegmentSettings
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import find_model

if TYPE_CHECKING:
    from stedfm_hf.inference.field_records import SegmentResult


@takes_settings(SegmentSettings)
def segment(settings: SegmentSettings) -> SegmentResult:
    """Segment images of any size, and measure the objects in them.

    A field is one channel of one series (all channels where the model takes several). It is scaled once as a whole
    and goes through the model in overlapping tiles that are blended (`segment_rows`): the maps are those of the
    pipeline `stedfm-segmentation`, at the pixels of the file. Pixels that are not finite are 0 to the model and are
    left out of the intensities. A field is processed in bands of rows, so that memory holds its pixels as the
    file has them and little else.

    Written for every field, `n` counting the fields of the file: `<path>.labels<n>.tif` (a model of one class a
    pixel: class numbers; else a plane of 0 and 1 for every class), `<path>.objects<n>.tif` (a plane for every class,
    each object with its number), `<path>.probabilities<n>.tif` (a plane for every class) and `<path>.overlay<n>.png`.
    With them `fields.parquet`, `objects.parquet` and `manifest.json`. If interrupted, the same call resumes.

    Returns:
        Counts and the manifest; `manifest.failures()` names the files that failed. Columns of `fields.parquet`:
        `path`, `series`, `channel`, `height`, `width`, `pixel_size_nm`, `share_<class>` (of the pixels),
        `objects_<class>` (how many), `<kind>_file` (in the folder, or null), `model`, `weights_sha256`. Those of
        `objects.parquet`: see `object_schema`.

    Raises:
        UserError: For wrong arguments, a model without a decoder for masks, nothing to segment, or an output begun
            with other settings.

    Example:
        >>> import tempfile
        >>> from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation
        >>> folder = Path(tempfile.mkdtemp())
        >>> config = StedFmConfig(num_hidden_layers=4, id2label={0: "background", 1: "rings"})
        >>> StedFmForSemanticSegmentation(config).save_pretrained(folder / "model")
        >>> import numpy as np
        >>> np.save(folder / "cell.npy", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
        >>> segment(folder / "cell.npy", folder / "out", model=folder / "model", device="cpu").exit_status
        0
        >>> sorted(file.name for file in (folder / "out").glob("cell*.tif"))
        ['cell.npy.labels1.tif', 'cell.npy.objects1.tif', 'cell.npy.probabilities1.tif']
    """
    given, folder = settings.inputs, Path(settings.output)
    inputs = [given] if isinstance(given, (str, os.PathLike)) else list(given)
    sources, skipped = find_sources(inputs)
    check_separate("output", folder, inputs, sources)
    check_output(folder, "segment", is_folder=True, overwrite=settings.overwrite)
    source = find_model(settings.model, head="ForSemanticSegmentation")

    # Errors up to here are told at once: these modules import torch, which takes seconds.
    from stedfm_hf.inference.segmenter import load_segmenter
    from stedfm_hf.inference.segmenting import segment_fields

    segmenter = load_segmenter(source, device=settings.device, precision=settings.precision)
    return segment_fields(settings, folder, sources, skipped, segmenter)
