"""Functions `evaluate_knn`, `_probe`, `_retrieval`, `_robustness`, `_segmentation` and `_weights`: compare models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stedfm_hf.data.sources import check_dataset
from stedfm_hf.evaluation.settings import (
    ComparisonSettings,
    KnnSettings,
    MaskSettings,
    ProbeSettings,
    RetrievalSettings,
    RobustnessSettings,
    WeightsSettings,
)
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import ModelSource, find_model

if TYPE_CHECKING:
    from stedfm_hf.evaluation.results import (
        ComparisonResult,
        MaskResult,
        RetrievalResult,
        RobustnessResult,
        WeightsResult,
    )


@takes_settings(KnnSettings)
def evaluate_knn(settings: KnnSettings) -> ComparisonResult:
    """Evaluate k-nearest-neighbour classification by cosine similarity, without training.

    Test images are classified by their nearest training images. The largest `k` is also evaluated with votes weighted
    by similarity (T = 0.07). `zscore` standardises each feature over the train split; texture features are always
    standardised, principal components never. Images that a model was trained or selected on are excluded.

    Returns:
        All metrics. The report is in the output folder.

    Raises:
        UserError: If arguments are invalid, labels are not classes, or the folder contains other results.

    Example:
        >>> evaluate_knn("benchmark-v1", "report", model=["demo"])  # doctest: +SKIP
    """
    models = _check(settings, "evaluate knn")
    from stedfm_hf.evaluation.protocol import run_knn  # imports torch, which takes seconds

    return run_knn(settings, models)


@takes_settings(ProbeSettings)
def evaluate_probe(settings: ProbeSettings) -> ComparisonResult:
    """Evaluate linear probes on the embeddings of frozen models, with few labels and with all.

    Images that a model was trained or selected on are excluded.

    Returns:
        All metrics. The report is in the output folder.

    Raises:
        UserError: If arguments are invalid, a class has too few images, or the folder contains other results.

    Example:
        >>> evaluate_probe("benchmark-v1", "report", model=["demo"])  # doctest: +SKIP
    """
    models = _check(settings, "evaluate probe")
    from stedfm_hf.evaluation.protocol import run_probe  # imports torch, which takes seconds

    return run_probe(settings, models)


@takes_settings(RetrievalSettings)
def evaluate_retrieval(settings: RetrievalSettings) -> RetrievalResult:
    """Evaluate the retrieval of images of the same class by cosine similarity, without training.

    Every image is a query, which is never ranked. All metrics are computed without images of the query's source image,
    and with them. `zscore` standardises each feature over all images; texture and morphology features are always
    standardised, principal components never. Images that a model was trained or selected on are excluded. `patches`
    ranks the patches of annotated images instead: those of other images, for patches that a class covers.

    Returns:
        All metrics. The report is in the output folder.

    Raises:
        UserError: If arguments are invalid, labels are not classes, or the folder contains other results.

    Example:
        >>> evaluate_retrieval("benchmark-v1", "report", model=["demo"])  # doctest: +SKIP
    """
    models = _check(settings, "evaluate retrieval")
    if settings.patches:
        from stedfm_hf.evaluation.patch_retrieval import run_patch_retrieval  # imports torch, which takes seconds

        return run_patch_retrieval(settings, models)
    from stedfm_hf.evaluation.retrieval import run_retrieval

    return run_retrieval(settings, models)


@takes_settings(RobustnessSettings)
def evaluate_robustness(settings: RobustnessSettings) -> RobustnessResult:
    """Evaluate models under changes of the acquisition: fewer photons, more background, a wider point spread function.

    Classifiers are trained on unchanged images and applied to changed test images, from no change to strong changes
    with units of the microscope. A model with a classification head is also evaluated with its head. Changes act on
    the measured pixels, before they are scaled. `family_column` names columns of the data set, such as the day, whose
    values are real batches. Images that a model was trained or selected on are excluded.

    Returns:
        All metrics. The report is in the output folder.

    Raises:
        UserError: If arguments are invalid, a column does not exist, or the folder contains other results.

    Example:
        >>> evaluate_robustness("benchmark-v1", "report", model=["demo"])  # doctest: +SKIP
    """
    models = _check(settings, "evaluate robustness")
    from stedfm_hf.evaluation.robustness.protocol import run_robustness  # imports torch, which takes seconds

    return run_robustness(settings, models)


@takes_settings(MaskSettings)
def evaluate_segmentation(settings: MaskSettings) -> MaskResult:
    """Evaluate the masks of models and baselines on annotated images.

    `zero_shot` adds the foreground masks of encoders without training (`stedfm_hf.interpretability.zero_shot_mask`).
    The output folder contains `metrics.json`, `per_image.parquet` (a row for each method, image and class),
    `report.html`, `figures/` and `manifest.json`. If interrupted, the same call resumes.

    Returns:
        All metrics. The report is in the output folder.

    Raises:
        UserError: If arguments are invalid, the classes of a model do not match the data, or the folder contains other
            results.

    Example:
        >>> evaluate_segmentation("annotated", "report", model=["my-segmenter"])  # doctest: +SKIP
    """
    check_dataset(settings.dataset)
    check_output(settings.output, "evaluate segmentation", is_folder=True, overwrite=settings.overwrite)
    models = [find_model(model, head="ForSemanticSegmentation") for model in settings.model]
    encoders = [find_model(model) for model in settings.zero_shot]
    from stedfm_hf.evaluation.segmentation.protocol import run_segmentation  # imports torch, which takes seconds

    return run_segmentation(settings, models, encoders)


@takes_settings(WeightsSettings)
def evaluate_weights(settings: WeightsSettings) -> WeightsResult:
    """Compare the weights of models, tensor by tensor.

    Tensors of the encoders with the same name and shape are compared. The Wasserstein distance compares the
    distributions of their values and ignores positions: it is 0 for permuted weights, and small for networks that were
    initialised in the same way. The cosine distance compares them position by position.
    The output folder contains `results.json`, `distances.parquet` (a row for each pair and tensor), `report.html`,
    `figures/` and `manifest.json`.

    Returns:
        All metrics. The report is in the output folder.

    Raises:
        UserError: If arguments are invalid, a model has no safetensors weights, no tensor can be compared, or the
            folder contains other results.

    Example:
        >>> evaluate_weights(["my-encoder", "my-finetuned"], "report")  # doctest: +SKIP
    """
    check_output(settings.output, "evaluate weights", is_folder=True, overwrite=settings.overwrite)
    models = [find_model(model) for model in settings.model]
    from stedfm_hf.evaluation.weights import run_weights  # imports torch, which takes seconds

    return run_weights(settings, models)


def _check(settings: ComparisonSettings, command: str) -> list[ModelSource]:
    """Check data set and output folder, and find the models, before slow imports."""
    check_dataset(settings.dataset)
    check_output(settings.output, command, is_folder=True, overwrite=settings.overwrite)
    models: list[str] | list[None] = settings.model or [None]
    return [find_model(model) for model in models]
