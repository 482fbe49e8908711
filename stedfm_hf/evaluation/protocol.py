"""The run of `evaluate knn` and `evaluate probe`: embed, classify, compare and report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.evaluation.extractors import Extractor, load_extractors
from stedfm_hf.evaluation.features import Vectors, features_folder, keep_usable, vectors_of
from stedfm_hf.evaluation.report import Contestant, Evaluation, write_report
from stedfm_hf.evaluation.report.shared import MADE, PAGE, RESULTS
from stedfm_hf.evaluation.results import ComparisonResult
from stedfm_hf.evaluation.scoring import Run, compare, summarise
from stedfm_hf.evaluation.settings import ComparisonSettings, KnnSettings, ProbeSettings
from stedfm_hf.evaluation.splits import leave_one_out, splits_to_test, unused_by
from stedfm_hf.evaluation.trials import ALL, knn_runs, probe_runs
from stedfm_hf.inference.loading import choose_device
from stedfm_hf.labels.labelled import LabelledImages, read_labelled, sample_per_class
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import UserError, print_note, read_json
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.weights.models import ModelSource

USUAL_COUNTS = (10, 25, 50, 100)
"""Labels per class of the paper's figures."""


def run_probe(settings: ProbeSettings, models: Sequence[ModelSource]) -> ComparisonResult:
    """Run `evaluate probe`; see `stedfm_hf.evaluation.evaluate_probe`."""
    splits = read_splits(settings)
    counts = _counts(splits.train, settings.labels_per_class)

    def run(splits: Splits[LabelledImages], vectors: Mapping[str, Vectors], found: Sequence[Extractor]) -> list[Run]:
        return probe_runs(splits, vectors, found, counts, settings.repeats, chance="chance" in settings.baselines)

    resolved = {"labels_per_class": [str(count) for count in counts]}
    return _evaluate("evaluate probe", settings, models, splits, resolved, run)


def run_knn(settings: KnnSettings, models: Sequence[ModelSource]) -> ComparisonResult:
    """Run `evaluate knn`; see `stedfm_hf.evaluation.evaluate_knn`."""
    splits, reference = read_splits(settings), settings.protocol == "reference"
    if splits.test.task != "classes":
        raise UserError(f"{splits.test.name}: neighbours vote on one class for each image; use stedfm evaluate probe")
    if reference and not len(splits.validation):
        raise UserError(f"{splits.test.name}: the reference protocol queries the validation split; there is none")

    def run(splits: Splits[LabelledImages], vectors: Mapping[str, Vectors], found: Sequence[Extractor]) -> list[Run]:
        device = choose_device(settings.device)
        return knn_runs(
            splits,
            vectors,
            found,
            settings.k,
            reference=reference,
            zscore=settings.zscore,
            chance="chance" in settings.baselines,
            # The search falls back on double precision, which Apple's GPUs do not have.
            device=device if device.type == "cuda" else "cpu",
        )

    return _evaluate("evaluate knn", settings, models, splits, {}, run)


def read_splits(settings: ComparisonSettings) -> Splits[LabelledImages]:
    """Read the images of a comparison and split them."""
    read = read_labelled(
        settings.dataset,
        settings.split,
        target=settings.target,
        series=settings.series,
        channel=settings.channel,
        source_pattern=settings.source_pattern,
    )
    one_out = isinstance(settings, KnnSettings) and settings.leave_one_out
    return leave_one_out(read) if one_out else splits_to_test(read)


def _counts(train: LabelledImages, asked: Sequence[int | str] | None) -> list[int | str]:
    """Labels per class, from few to all; refuses what there is not."""
    if asked is None:
        least = len(train) if train.task == "regression" else min(train.counts().values())
        return [*(count for count in USUAL_COUNTS if count < least), ALL]
    found: list[int | str] = []
    for each in dict.fromkeys(map(str, asked)):
        if each != ALL and not each.isdecimal():
            raise UserError(f"labels_per_class {each!r} is not a number of images; give numbers, or all")
        found.append(each if each == ALL else int(each))
    for count in found:
        if isinstance(count, int):
            sample_per_class(train, count, 0)  # complains before anything is embedded
    return sorted(found, key=lambda count: count if isinstance(count, int) else len(train) + 1)


Runs = Callable[[Splits[LabelledImages], Mapping[str, Vectors], Sequence[Extractor]], list[Run]]


def _evaluate(
    command: str,
    settings: ComparisonSettings,
    sources: Sequence[ModelSource],
    splits: Splits[LabelledImages],
    resolved: Mapping[str, Any],
    run: Runs,
) -> ComparisonResult:
    """Load, open the folder, embed, run, compare and write: what both protocols share."""
    baselines = () if settings.baselines == ["none"] else tuple(settings.baselines)
    extractors = load_extractors(
        sources,
        baselines,
        data=splits.train,
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    models = {each.key: each.key for each in extractors if each.kind == "model"}
    kept, notes = unused_by(models, splits.test, least_classes=2 * (splits.test.task != "regression"))
    tested = splits.take({"test": kept})
    with open_output(
        settings.output,
        command,
        settings,
        results=(RESULTS, PAGE),
        temporary=MADE,
        resolved={
            "data": splits.train.name,
            "fingerprint": {name: data.fingerprint for name, data in tested.named().items()},
            "models": {each.key: each.identity.get("weights") for each in extractors},
            "chance": "chance" in baselines,
            **resolved,
        },
        model=", ".join(each.name for each in extractors if each.kind == "model"),
        weights_sha256=extractors[0].identity.get("weights"),
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            print_note(f"{output.path}: is finished")
        else:
            _run(output, settings, splits, kept, notes, extractors, baselines, run)
    result = ComparisonResult(output.path, output.manifest, dict(read_json(output.path / RESULTS)))
    result.print_notes()
    return result


def _run(
    output: Output,
    settings: ComparisonSettings,
    splits: Splits[LabelledImages],
    kept: np.ndarray,
    notes: list[str],
    extractors: Sequence[Extractor],
    baselines: Sequence[str],
    run: Runs,
) -> None:
    """Embed, run, compare and write the report."""
    manifest, began = output.manifest, time.monotonic()
    manifest.items.clear()
    failed = dict(splits.failed())
    print_note(f"{splits.train.name}: {splits.counts()}")
    vectors: dict[str, Vectors] = {}
    cache = features_folder() if settings.cache == "auto" else settings.cache
    for extractor in extractors:
        vectors[extractor.key], unusable = vectors_of(splits, extractor, None if cache is None else Path(cache))
        failed = unusable | failed
    for place, reason in failed.items():
        print_note(f"error: {place}: {reason}")
        manifest.failed(place, reason)
    embedded = time.monotonic()
    for place in splits.test.image_ids[~kept].tolist():
        manifest.skipped(place, "a model was trained or selected on its source image")
    splits, usable = keep_usable(splits, vectors, kept)
    runs = run(splits, usable, extractors)
    contestants = [Contestant(each.key, each.name, each.kind, each.identity.get("weights")) for each in extractors]
    if "chance" in baselines:
        contestants.append(Contestant("chance", "Chance", "baseline", None))
    models = [each.key for each in extractors if each.kind == "model"]
    evaluation = Evaluation(
        command=manifest.command,
        splits=splits,
        training=notes,
        contestants=contestants,
        runs=runs,
        summary=summarise(splits.test, runs, population=manifest.settings.get("protocol") == "reference"),
        comparisons=compare(splits.test, runs, models),
        settings=json.loads(json.dumps(manifest.settings)),
        failed=manifest.failures(),
        seconds={"embedding": embedded - began, "evaluation": time.monotonic() - embedded},
    )
    for data in splits.named().values():
        for place in data.image_ids.tolist():
            manifest.done(place)
    write_report(evaluation, output.path)
    print_note(f"{len(runs)} runs of {len(contestants)} models and baselines")
