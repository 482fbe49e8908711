"""`stedfm evaluate find`: score maps and regions of finders, compared with annotated images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stedfm_hf.acquisition.settings import EvaluateFindSettings
from stedfm_hf.data.sources import check_dataset
from stedfm_hf.runs import UserError
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import find_model

if TYPE_CHECKING:
    from stedfm_hf.acquisition.evaluation.results import FindEvaluation
    from stedfm_hf.weights.models import ModelSource


@takes_settings(EvaluateFindSettings)
def evaluate_find(settings: EvaluateFindSettings) -> FindEvaluation:
    """Evaluate score maps and regions of finders on annotated images.

    Every image is scored by finders that were fitted to the other folds of source images, or by finders of `finder`
    that were not fitted to it. Average precision is computed in each image: of patches, of pixels, and of regions,
    which are the maxima of the score map; a region shows an annotated object if it contains at least half as much of
    it as a region of this size can contain. Confidence intervals are from a bootstrap over source images.

    The output folder contains `results.json`, `summary.csv`, `per_image.parquet` (a row for each method, image, class
    and level), `curves.parquet`, `report.html`, `figures/` and `manifest.json`. If interrupted, the same call resumes:
    fitted finders and scored images are kept.

    Returns:
        All metrics. The report is in the output folder.

    Raises:
        UserError: If arguments are invalid, a class is in less than two source images, the classes of a finder do not
            match the data, or the folder contains other results.

    Example:
        >>> evaluate_find("annotated", "report", model=["demo"])  # doctest: +SKIP
    """
    check_dataset(settings.dataset)
    check_output(settings.output, "evaluate find", is_folder=True, overwrite=settings.overwrite)
    models: list[ModelSource] = []
    if settings.methods:
        given: list[str] | list[None] = settings.model or [None]
        models = [find_model(model) for model in given]
    if doubled := next((each.given for each in models if models.count(each) > 1), None):
        raise UserError(f"model {doubled} is named twice; name every model once")
    if missing := next((folder for folder in settings.finder if not Path(folder).is_dir()), None):
        raise UserError(f"finder {missing}: no such folder; give the output of `stedfm finder fit`")
    from stedfm_hf.acquisition.evaluation.run import run_evaluation  # imports torch, which takes seconds

    result = run_evaluation(settings, models)
    result.print_notes()
    return result
