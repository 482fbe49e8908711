"""`stedfm segment`: masks, probability maps, overlays and tables of objects of whole fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stedfm_hf.data.sources import check_separate, find_sources
from stedfm_hf.inference.settings import SegmentSettings
from stedfm_hf.inference.zarr_planes import import_zarr
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.storage import as_path
from stedfm_hf.weights.models import find_model

if TYPE_CHECKING:
    from stedfm_hf.inference.field_records import SegmentResult


@takes_settings(SegmentSettings)
def segment(settings: SegmentSettings) -> SegmentResult:
    """Segment images of any size, and measure the objects in them.

    A field is one channel of one series (all channels for a model with more than one). It is scaled once as a whole
    and segmented in overlapping tiles that are blended (`segment_rows`). The maps equal those of the pipeline
    `stedfm-segmentation`, at the pixels of the file. Non-finite pixels are 0 for the model and are ignored in
    intensities. A field is processed in bands of rows, so that memory holds little more than its pixels.

    Files of field `n` of a file: `<path>.labels<n>.tif` (class numbers, or for overlapping classes one plane of 0 and
    1 per class), `<path>.objects<n>.tif` (one plane per class with the numbers of its objects),
    `<path>.probabilities<n>.tif` (one plane per class) and `<path>.overlay<n>.png`. With another `format`, the suffix
    is `.ome.tif` or `.ome.zarr`. The folder also holds `fields.parquet`, `objects.parquet` and `manifest.json`. The
    same call resumes an interrupted run.

    Returns:
        Counts and manifest; `manifest.failures()` lists the failed files. Columns of `fields.parquet`: `path`,
        `series`, `channel`, `height`, `width`, `pixel_size_nm`, `fraction_<class>` of the pixels, `objects_<class>`
        (number of objects), `<kind>_file` (file name or null), `model`, `weights_sha256`. Columns of
        `objects.parquet`: see `object_schema`.

    Raises:
        UserError: For wrong arguments, a model without a decoder, no input images, or an output made with other
            settings.

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
    folder: Path = as_path(settings.output)
    sources, skipped = find_sources(settings.inputs)
    check_separate("output", folder, sources)
    check_output(folder, "segment", is_folder=True, overwrite=settings.overwrite)
    if settings.format == "ome-zarr":
        import_zarr()
    source = find_model(settings.model, head="ForSemanticSegmentation")

    with open_cluster(settings.cluster) as cluster:
        # Errors up to here are reported at once: these modules import torch, which takes seconds.
        from stedfm_hf.inference.segmenter import load_segmenter
        from stedfm_hf.inference.segmenting import segment_fields

        segmenter = load_segmenter(
            source, device=settings.device, precision=settings.precision, backend=settings.backend
        )
        return segment_fields(settings, folder, sources, skipped, segmenter, cluster)
