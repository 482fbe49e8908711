"""`stedfm find`: score maps of fields, and the regions to image next."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.acquisition.result import FindResult
from stedfm_hf.acquisition.settings import FindSettings
from stedfm_hf.data.sources import check_separate, find_sources
from stedfm_hf.runs import UserError
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings


@takes_settings(FindSettings)
def find(settings: FindSettings) -> FindResult:
    r"""Find structures in fields of any size, and propose the regions to image next.

    Images are found and read as by `embed`, and scaled as the finder was fitted. Every patch is scored in overlapping
    tiles, whose scores are blended. Regions are centred on the highest local maxima of the score map, one by one;
    those too close to a higher one are suppressed.

    Files of image `n` of a file: `<path>.scores<n>.tif` (float32, one plane for each class and one value per patch,
    with pixel size, for ImageJ), `<path>.regions<n>.png` (the image with its regions, next to the maps) and, if
    roifile is installed, `<path>.rois<n>.zip`. The folder also holds `regions.parquet`, `regions.csv` and
    `manifest.json`. The same call resumes an interrupted run, and adds new and failed files to a finished folder.

    With a finder of the reference protocol the map is the published one, with a value for every pixel: of templates,
    raised to its 0.95 quantile, with the published regions; of a forest, the predicted class, without regions.

    Returns:
        Folder, manifest and table with a row for each region. Columns: those of the image as for `embed`; `rank` in
        the field, from 1; `label`, the class; `score`; `y_px`, `x_px`, `height_px`, `width_px`, the top left corner
        and the size; `centre_y_px`, `centre_x_px`; the same in µm, null without a pixel size; `peak_y_px`,
        `peak_x_px`, the centre of the patch with the score; `stage_x_um`, `stage_y_um`, the centre on the stage, with
        `stage`; `map_file`, `overlay_file`, `model`, `weights_sha256`. Failed files have no row and are listed by
        `manifest.failures()`.

    Raises:
        UserError: For wrong arguments, a folder that is not a finder, no input images, or an output made with other
            settings.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> from stedfm_hf.acquisition import fit_finder
        >>> folder = Path(tempfile.mkdtemp())
        >>> StedFmModel(StedFmConfig(num_hidden_layers=1)).save_pretrained(folder / "model")
        >>> (folder / "images").mkdir()
        >>> np.save(folder / "images" / "cell.npy", np.random.default_rng(0).random((64, 64)))
        >>> _ = (folder / "clicks.csv").write_text("path,y_px,x_px,class\ncell.npy,24,40,ring")
        >>> how = {"model": folder / "model", "device": "cpu"}
        >>> _ = fit_finder(folder / "images", folder / "finder", clicks=folder / "clicks.csv", **how)
        >>> result = find(folder / "images", folder / "finder", folder / "found", region_size_px=16, count=1, **how)
        >>> result.table.select(["centre_y_px", "centre_x_px"]).to_pylist()
        [{'centre_y_px': 23.5, 'centre_x_px': 39.5}]
    """
    folder = Path(settings.output)
    sources, skipped = find_sources(settings.inputs)
    check_separate("output", folder, sources)
    check_output(folder, "find", is_folder=True, overwrite=settings.overwrite)
    if not Path(settings.finder).is_dir():
        raise UserError(f"finder {settings.finder}: no such folder; give the output of `stedfm finder fit`")
    if settings.stage is not None and not Path(settings.stage).is_file():
        raise UserError(f"--stage {settings.stage}: no such file; check the path")

    with open_cluster(settings.cluster) as cluster:
        # Errors up to here are reported at once: these modules import torch, which takes seconds.
        from stedfm_hf.acquisition.finding_run import run_find

        output, table = run_find(settings, folder, sources, skipped, cluster)
    return FindResult(folder, output.manifest, table)
