"""`stedfm explain`: maps of what a model looks at, a table and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stedfm_hf.data.sources import check_separate, find_sources
from stedfm_hf.interpretability.settings import ExplainSettings, check_method
from stedfm_hf.runs import UserError
from stedfm_hf.runs.files import read_json
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import ModelSource, find_model

if TYPE_CHECKING:
    from stedfm_hf.interpretability.result import ExplainResult


@takes_settings(ExplainSettings)
def explain(settings: ExplainSettings) -> ExplainResult:
    """Show what a model looks at in images of any size.

    Images are found, read and scaled as by `embed`: an image is one channel of one series (all channels for a model
    with more than one). Larger images are processed in overlapping tiles that are blended.

    The methods show different things:

    - `logit`: evidence of each patch for a class. In an image that fits into one tile, the map sums to the logit that
      `classify` computes; in a larger one it is blended evidence of the tiles.
    - `attention`: attention of the class token, or of the patch at `query`, to the patches.
    - `pca`: three principal components of the patch tokens, fitted to all images together.
    - `similarity`: 1 minus the cosine similarity of the patch tokens of two models.
    - `correspondence`: most similar patch in `reference_image` for each patch.

    Files of image `n` of a file: `<path>.map<n>.tif` (float32, one value per patch, with pixel size, for ImageJ) and
    `<path>.overlay<n>.png`. The folder also holds `explanations.parquet`, `report.html`, `manifest.json` and for `pca`
    the components. The same call resumes an interrupted run, and adds new and failed files to a finished folder.

    Returns:
        Folder, manifest and table. Columns: `path`, `series`, `channel`, `height`, `width`, `pixel_size_nm` as for
        `embed`; `method`; for `logit` also `label` (the explained class), `predicted`, `logit` (the sum of the map)
        and `exact` (whether it is the logit of the image); for `pca` `foreground_fraction`; for `similarity`
        `mean_similarity` and `min_similarity`; for `correspondence` `mean_similarity` and `mutual_patches`;
        `peak_value`, `peak_y_px`, `peak_x_px`, the largest value of the first map and the top left corner of its
        patch in pixels of the file, null for `pca`; `map_file`, `overlay_file`, `model`, `weights_sha256`. Failed
        files have no row and are listed by `manifest.failures()`.

    Raises:
        UserError: For wrong arguments, a model that the method cannot explain, no input images, or an output made with
            other settings.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from stedfm_hf import StedFmConfig, StedFmForImageClassification
        >>> folder = Path(tempfile.mkdtemp())
        >>> config = StedFmConfig(num_hidden_layers=1, id2label={0: "rings", 1: "fibres"})
        >>> StedFmForImageClassification(config).save_pretrained(folder / "model")
        >>> np.save(folder / "cell.npy", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
        >>> result = explain(folder / "cell.npy", folder / "out", model=folder / "model", device="cpu")
        >>> result.table["exact"].to_pylist(), sorted(file.name for file in (folder / "out").glob("cell*"))
        ([True], ['cell.npy.map1.tif', 'cell.npy.overlay1.png'])
    """
    folder = Path(settings.output)
    sources, skipped = find_sources(settings.inputs)
    check_separate("output", folder, sources)
    check_output(folder, "explain", is_folder=True, overwrite=settings.overwrite)
    needs_logits = settings.method == "logit" or settings.aggregate == "gradient"
    source = find_model(settings.model, head="ForImageClassification" if needs_logits else None)
    method = settings.method or default_method(source)
    check_method(settings, method)
    other = None if settings.compare_with is None else find_model(settings.compare_with)
    reference = () if settings.reference_image is None else find_sources(str(settings.reference_image))[0]

    if settings.components is not None and not Path(settings.components).is_dir():
        raise UserError(f"components {settings.components}: no such folder; give the output of --method pca")

    # Errors up to here are reported at once: these modules import torch, which takes seconds.
    from stedfm_hf.interpretability.building import Given
    from stedfm_hf.interpretability.explaining import explain_sources

    return explain_sources(Given(settings, method, folder, sources, skipped, source, other, reference))


def default_method(source: ModelSource) -> str:
    """Return `logit` for a classifier that averages patch tokens, else `attention`.

    Args:
        source: Model.
    """
    if source.is_folder:
        config = read_json(Path(source.location) / "config.json")
    else:
        from transformers import AutoConfig  # a Hub id: takes seconds to import

        config = AutoConfig.from_pretrained(source.location).to_dict()
    architectures = config.get("architectures") or [] if isinstance(config, dict) else []
    is_classifier = any(str(each).endswith("ForImageClassification") for each in architectures)
    return "logit" if is_classifier and config.get("pooling", "avg") == "avg" else "attention"
