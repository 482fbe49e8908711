"""Run of `evaluate retrieval`: rank the images of a data set for each of its images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stedfm_hf.evaluation.features import prepare_for_search
from stedfm_hf.evaluation.protocol import ComparedFeatures, compare_features
from stedfm_hf.evaluation.rankings import Queries, compare_rankings, rank_images, summarise_rankings
from stedfm_hf.evaluation.report.content import CHANCE
from stedfm_hf.evaluation.report.page import BASELINE_SENTENCES
from stedfm_hf.evaluation.report.retrieval import FILES, RetrievalReport, write_retrieval_report
from stedfm_hf.evaluation.results import RetrievalResult
from stedfm_hf.evaluation.settings import RetrievalSettings
from stedfm_hf.evaluation.splits import searched_split
from stedfm_hf.labels.reading import read_labelled_images
from stedfm_hf.metrics.ranking import Ranking
from stedfm_hf.runs import UserError
from stedfm_hf.weights.models import ModelSource

PROTOCOL = (
    "Every image is a query: the others are ranked by the cosine similarity of their features, and those of its class "
    "are relevant. mAP is the mean average precision over queries. Images of equal similarity have no order: "
    "precision@k and mAP@k are expected values over all orders."
)
"""Description of the protocol."""


def run_retrieval(settings: RetrievalSettings, models: Sequence[ModelSource]) -> RetrievalResult:
    """Run `evaluate retrieval`; see `stedfm_hf.evaluation.evaluate_retrieval`.

    Args:
        settings: Settings of the command.
        models: Models to evaluate.
    """
    read = read_labelled_images(settings)
    splits = searched_split(read, settings.split)
    if splits.test.task != "classes":
        raise UserError(f"{splits.test.name}: evaluate retrieval needs one class for each image; set --target")
    output, record = compare_features("evaluate retrieval", settings, models, splits, {}, _write, FILES)
    result = RetrievalResult(output.path, output.manifest, record)
    result.print_notes()
    return result


def _write(compared: ComparedFeatures, folder: Path) -> str:
    """Rank the images for all methods, and write the report."""
    began = time.monotonic()
    test, reference = compared.splits.test, compared.settings["protocol"] == "reference"
    rankings: dict[tuple[str, str], Ranking] = {}
    for method, features in _features(compared).items():
        ranked = rank_images(features, test.labels, test.sources, ks=compared.settings["k"], reference=reference)
        rankings |= {(method, setting): ranking for setting, ranking in ranked.items()}
    queries = Queries(test.classes, test.labels, test.image_ids, test.sources, {})
    primary = "auroc" if reference else "aupr"
    report = RetrievalReport(
        command=compared.command,
        splits=compared.splits,
        data_notes=compared.training,
        methods=compared.methods,
        queries=queries,
        rankings=rankings,
        primary=primary,
        summary=summarise_rankings(queries, rankings, primary=primary),
        comparisons=compare_rankings(queries, rankings, compared.models, primary=primary),
        protocol=[PROTOCOL],
        baselines=BASELINE_SENTENCES,
        settings=compared.settings,
        failed=compared.failed,
        seconds={"feature_extraction": compared.seconds, "evaluation": time.monotonic() - began},
    )
    write_retrieval_report(report, folder)
    return f"{len(queries):,} queries, {len(compared.methods)} models and baselines"


def _features(compared: ComparedFeatures) -> dict[str, np.ndarray]:
    """Return the features of the queries by method; equal features for chance, which has no order."""
    found = {}
    for extractor in compared.extractors:
        by_split = compared.features[extractor.key]
        _, found[extractor.key] = prepare_for_search(
            by_split["train"], extractor, by_split["test"], zscore=bool(compared.settings["zscore"])
        )
    if CHANCE in compared.methods:
        found[CHANCE.key] = np.ones((len(compared.splits.test), 1))
    return found
