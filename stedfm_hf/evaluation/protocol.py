"""Steps that the comparisons of models share: extract features, evaluate them, and write the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.evaluation.extractors import Extractor, load_extractors
from stedfm_hf.evaluation.features import SplitFeatures, compute_split_features, exclude_images, features_folder
from stedfm_hf.evaluation.report import Evaluation, MethodInfo, write_report
from stedfm_hf.evaluation.report.content import CHANCE
from stedfm_hf.evaluation.report.files import OTHER_FILES, RESULTS, open_report
from stedfm_hf.evaluation.results import ComparisonResult
from stedfm_hf.evaluation.scoring import Run, compare, summarise
from stedfm_hf.evaluation.settings import ComparisonSettings, KnnSettings, ProbeSettings
from stedfm_hf.evaluation.splits import evaluation_splits, exclude_training_images, leave_one_out
from stedfm_hf.evaluation.trials import ALL, knn_runs, probe_runs
from stedfm_hf.inference.loading import choose_device
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.labelled import LabelledImages, sample_per_class
from stedfm_hf.labels.reading import read_labelled_images
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import UserError, print_note, read_json
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.executors import Workers
from stedfm_hf.runs.failures import record_failures
from stedfm_hf.runs.output import Output
from stedfm_hf.weights.models import ModelSource

DEFAULT_COUNTS = (10, 25, 50, 100)
"""Default numbers of labels per class, as in the figures of the paper."""


def run_probe(settings: ProbeSettings, models: Sequence[ModelSource]) -> ComparisonResult:
    """Run `evaluate probe`; see `stedfm_hf.evaluation.evaluate_probe`.

    Args:
        settings: Settings of the command.
        models: Models to evaluate.
    """
    splits = read_splits(settings)
    counts = _counts(splits.train, settings.labels_per_class)

    def run(
        splits: Splits[LabelledImages], features: Mapping[str, SplitFeatures], extractors: Sequence[Extractor]
    ) -> list[Run]:
        """Fit and test a probe for each method, number of labels and sample."""
        return probe_runs(
            splits, features, extractors, counts, settings.repeats, chance="chance" in settings.baselines
        )

    resolved = {"labels_per_class": [str(count) for count in counts]}
    return _evaluate("evaluate probe", settings, models, splits, resolved, run)


def run_knn(settings: KnnSettings, models: Sequence[ModelSource]) -> ComparisonResult:
    """Run `evaluate knn`; see `stedfm_hf.evaluation.evaluate_knn`.

    Args:
        settings: Settings of the command.
        models: Models to evaluate.
    """
    splits, reference = read_splits(settings), settings.protocol == "reference"
    if splits.test.task != "classes":
        raise UserError(f"{splits.test.name}: evaluate knn needs one class for each image; use stedfm evaluate probe")
    if reference and not len(splits.validation):
        raise UserError(f"{splits.test.name}: the reference protocol needs a validation split, but there is none")

    def run(
        splits: Splits[LabelledImages], features: Mapping[str, SplitFeatures], extractors: Sequence[Extractor]
    ) -> list[Run]:
        """Classify the test images by their neighbours, for each method and number of neighbours."""
        device = choose_device(settings.device)
        return knn_runs(
            splits,
            features,
            extractors,
            settings.k,
            reference=reference,
            zscore=settings.zscore,
            chance="chance" in settings.baselines,
            # The search needs double precision, which Apple GPUs do not support.
            device=device if device.type == "cuda" else "cpu",
        )

    return _evaluate("evaluate knn", settings, models, splits, {}, run)


def read_splits(settings: ComparisonSettings) -> Splits[LabelledImages]:
    """Read the labelled images and split them.

    Args:
        settings: Settings of the command.

    Raises:
        UserError: If the images cannot be read or split.
    """
    read = read_labelled_images(settings, settings.split)
    one_split = isinstance(settings, KnnSettings) and settings.leave_one_out
    return leave_one_out(read) if one_split else evaluation_splits(read)


def _counts(train: LabelledImages, requested: Sequence[int | str] | None) -> list[int | str]:
    """Return the numbers of labels per class, from few to all, after checking that there are enough images."""
    if requested is None:
        smallest = len(train) if train.task == "regression" else min(train.counts().values())
        return [*(count for count in DEFAULT_COUNTS if count < smallest), ALL]
    counts: list[int | str] = []
    for each in dict.fromkeys(map(str, requested)):
        if each != ALL and not each.isdecimal():
            raise UserError(f"labels_per_class {each!r} is not a number of images; give numbers or all")
        counts.append(each if each == ALL else int(each))
    for count in counts:
        if isinstance(count, int):
            sample_per_class(train, count, 0)  # raises an error before features are extracted
    return sorted(counts, key=lambda count: count if isinstance(count, int) else len(train) + 1)


Runs = Callable[[Splits[LabelledImages], Mapping[str, SplitFeatures], Sequence[Extractor]], list[Run]]


@dataclass(frozen=True, eq=False)
class ComparedFeatures:
    """Features of the images by all models and baselines, to be evaluated.

    Attributes:
        command: Name of the command.
        splits: Images that are readable for all methods; test has no images that a model was trained on.
        features: Features of each split, by the key of the method.
        extractors: Models, then baselines, except chance.
        methods: Models, then baselines.
        training: Sentences on the images that the models were trained on.
        settings: Settings that determine the result, as JSON data.
        failed: Reason why an image could not be read, by its image id.
        seconds: Duration of the extraction, in seconds.
        cluster: Open cluster that computes more features; None computes them in this process.
    """

    command: str
    splits: Splits[LabelledImages]
    features: Mapping[str, SplitFeatures]
    extractors: Sequence[Extractor]
    methods: Sequence[MethodInfo]
    training: Sequence[str]
    settings: Mapping[str, Any]
    failed: Mapping[str, str]
    seconds: float
    cluster: Workers | None = None

    @property
    def models(self) -> list[str]:
        """Keys of the models."""
        return [each.key for each in self.methods if each.kind == "model"]


Write = Callable[[ComparedFeatures, Path], str]
"""Function that evaluates features, writes the report into a folder, and returns a sentence for the terminal."""


def _evaluate(
    command: str,
    settings: ComparisonSettings,
    sources: Sequence[ModelSource],
    splits: Splits[LabelledImages],
    resolved: Mapping[str, Any],
    run: Runs,
) -> ComparisonResult:
    """Classify the test images by the features of all methods, and report the runs.

    Args:
        command: Name of the command.
        settings: Settings of the command.
        sources: Models to evaluate.
        splits: Images of each split.
        resolved: Settings that are known only now, for the manifest.
        run: Function that evaluates the features of all methods.
    """

    def write(compared: ComparedFeatures, folder: Path) -> str:
        """Evaluate the features and write the report."""
        began = time.monotonic()
        runs = run(compared.splits, compared.features, compared.extractors)
        test = compared.splits.test
        evaluation = Evaluation(
            command=compared.command,
            splits=compared.splits,
            data_notes=compared.training,
            methods=compared.methods,
            runs=runs,
            summary=summarise(test, runs, population=compared.settings.get("protocol") == "reference"),
            comparisons=compare(test, runs, compared.models),
            settings=compared.settings,
            failed=compared.failed,
            seconds={"feature_extraction": compared.seconds, "evaluation": time.monotonic() - began},
        )
        write_report(evaluation, folder)
        return f"{len(runs)} runs of {len(compared.methods)} models and baselines"

    output, record = compare_features(command, settings, sources, splits, resolved, write, OTHER_FILES)
    result = ComparisonResult(output.path, output.manifest, record)
    result.print_notes()
    return result


def compare_features(
    command: str,
    settings: ComparisonSettings,
    sources: Sequence[ModelSource],
    splits: Splits[LabelledImages],
    resolved: Mapping[str, Any],
    write: Write,
    files: Sequence[str],
) -> tuple[Output, dict[str, Any]]:
    """Load the models, open the output folder, extract the features, and evaluate them.

    Args:
        command: Name of the command.
        settings: Settings of the command.
        sources: Models to evaluate.
        splits: Images of each split.
        resolved: Settings that are known only now, for the manifest.
        write: Function that evaluates the features and writes the report.
        files: Names of the files of the report, except `results.json` and `report.html`.

    Returns:
        The output folder, and the content of `results.json`.
    """
    baselines = () if settings.baselines == ["none"] else tuple(settings.baselines)
    with open_cluster(settings.cluster) as cluster:
        extractors = extractors_of(settings, sources, baselines, splits.train)
        methods = methods_of(extractors, baselines)
        models = {each.key: each.key for each in extractors if each.kind == "model"}
        keep, notes = exclude_training_images(models, splits.test, min_classes=2 * (splits.test.task != "regression"))
        tested = splits.take({"test": keep})
        known = {
            "data": splits.train.name,
            "data_checksums": {name: data.fingerprint for name, data in tested.named().items()},
            "models": {each.key: each.identity.get("weights") for each in extractors},
            "chance": CHANCE in methods,
            **resolved,
        }
        with open_report(command, settings, methods, files=files, resolved=known) as output:
            if output.finished:
                output.report_finished()
            else:
                _run(output, settings, splits, keep, notes, extractors, methods, write, cluster)
    return output, dict(read_json(output.path / RESULTS))


def extractors_of(
    settings: ComparisonSettings,
    sources: Sequence[ModelSource],
    baselines: Sequence[str],
    data: LabelledImages | AnnotatedImages,
) -> list[Extractor]:
    """Load the models, then the baselines except chance.

    Args:
        settings: Settings of the command.
        sources: Models to evaluate.
        baselines: Names of the baselines.
        data: Images whose mean and standard deviation normalise the input of the untrained network.
    """
    return load_extractors(
        sources,
        baselines,
        data=data,
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )


def methods_of(extractors: Sequence[Extractor], baselines: Sequence[str]) -> list[MethodInfo]:
    """Return the models and baselines, with chance if it is one of the baselines.

    Args:
        extractors: Models, then baselines, except chance.
        baselines: Names of the baselines.
    """
    methods = [MethodInfo(each.key, each.name, each.kind, each.identity.get("weights")) for each in extractors]
    return [*methods, CHANCE] if CHANCE.key in baselines else methods


def _run(
    output: Output,
    settings: ComparisonSettings,
    splits: Splits[LabelledImages],
    keep: np.ndarray,
    notes: list[str],
    extractors: Sequence[Extractor],
    methods: Sequence[MethodInfo],
    write: Write,
    cluster: Workers | None,
) -> None:
    """Extract the features, evaluate all methods, and write the report and the status of each image into `output`.

    Images that are unreadable for one method are excluded for all. Test images that `keep` excludes are recorded as
    skipped. The status of images in an earlier run is dropped.
    """
    manifest, began = output.manifest, time.monotonic()
    manifest.items.clear()
    failed = dict(splits.failed())
    print_note(f"{splits.train.name}: {splits.counts()}")
    features: dict[str, SplitFeatures] = {}
    cache = features_folder() if settings.cache == "auto" else settings.cache
    for extractor in extractors:
        features[extractor.key], unusable = compute_split_features(
            splits, extractor, None if cache is None else Path(cache), cluster
        )
        failed = unusable | failed
    record_failures(failed, manifest)
    extracted = time.monotonic()
    for image_id in splits.test.image_ids[~keep].tolist():
        manifest.skipped(image_id, "a model was trained or selected on its source image")
    splits, usable = exclude_images(splits, features, keep)
    compared = ComparedFeatures(
        command=manifest.command,
        splits=splits,
        features=usable,
        extractors=extractors,
        methods=methods,
        training=notes,
        settings=json.loads(json.dumps(manifest.settings)),
        failed=manifest.failures(),
        seconds=extracted - began,
        cluster=cluster,
    )
    for data in splits.named().values():
        for image_id in data.image_ids.tolist():
            manifest.done(image_id)
    print_note(write(compared, output.path))
