"""The reference of tables names the columns that the commands write."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from stedfm_hf.acquisition.evaluation.results import CURVES, SUMMARY
from stedfm_hf.acquisition.evaluation.scoring import SCHEMA as FIND_SCHEMA
from stedfm_hf.acquisition.loop.comparison import compare
from stedfm_hf.acquisition.loop.power import PowerRow
from stedfm_hf.acquisition.loop.running import CURVE_SCHEMA
from stedfm_hf.acquisition.regions import REGION_SCHEMA
from stedfm_hf.data.publishing.statistics import Statistics
from stedfm_hf.data.repository.layout import Crop, Scaling, crop_features, crops_to_table
from stedfm_hf.discovery.groups.differences import Difference
from stedfm_hf.discovery.groups.enrichment import Enrichment
from stedfm_hf.discovery.search.images import IMAGE_SCHEMA
from stedfm_hf.discovery.search.places import PLACE_SCHEMA
from stedfm_hf.evaluation.morphology import MORPHOLOGY
from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.evaluation.report.weights import WeightsReport
from stedfm_hf.evaluation.scoring import METRICS
from stedfm_hf.evaluation.segmentation.scores import Scorer, scores_to_table
from stedfm_hf.evaluation.weights import SCHEMA
from stedfm_hf.generation.direction import Direction
from stedfm_hf.generation.measured import DRIFT, MeasuredWalks, summarise, write_changes
from stedfm_hf.generation.measures import MEASURES
from stedfm_hf.inference.field_task import field_schema, object_schema
from stedfm_hf.inference.predictions import prediction_schema
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL, embedding_schema
from stedfm_hf.interpretability.explainers import (
    AttentionExplainer,
    CorrespondenceExplainer,
    LogitExplainer,
    PcaExplainer,
    SimilarityExplainer,
)
from stedfm_hf.interpretability.settings import METHODS
from stedfm_hf.interpretability.writing import explanation_schema
from stedfm_hf.labels.annotated import from_arrays
from stedfm_hf.runs import Manifest
from stedfm_hf.training.curve import FinetuneRow
from tests.evaluation.test_report import evaluation
from tests.evaluation.test_retrieval_report import retrieval_report
from tests.labels.labelled_data import arrays

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
SHARED = {name for name, _ in (*OF_IMAGE, *OF_MODEL)}


def documented(*headings: str) -> set[str]:
    """Return the names in the first cells of the tables below a heading, given with those above it."""
    text = PAGE
    for level, heading in enumerate(headings, 2):
        mark = "#" * level
        text = re.split(rf"^{mark} {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
        text = re.split(rf"^#{{2,{level}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    first_cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


def literals(*modules: str) -> set[str]:
    """Return the names in quotes in the code of some modules."""
    code = "".join((ROOT / "stedfm_hf" / module).read_text(encoding="utf-8") for module in modules)
    return set(re.findall(r"\"(\w+)\"", code))


def test_columns_of_the_image_and_the_model() -> None:
    assert documented("Columns that describe the image") == SHARED


def test_columns_of_embed() -> None:
    assert documented("embed") == set(embedding_schema(4, patches=True).names) - SHARED


def test_columns_of_cluster() -> None:
    names = documented("cluster")
    assert names >= {each.name for kind in (Enrichment, Difference) for each in fields(kind)}
    assert names >= literals("discovery/groups/tables.py") - {"a", "b", "str", "int", "float", "U", "f"} - SHARED


def test_columns_of_search() -> None:
    assert documented("search") >= set(PLACE_SCHEMA.names) - SHARED
    assert set(IMAGE_SCHEMA.names) < set(PLACE_SCHEMA.names)


def test_columns_of_find() -> None:
    assert documented("find") == set(REGION_SCHEMA.names) - SHARED


def test_columns_of_classify() -> None:
    names = prediction_schema(["p_<class>", "value_<name>"], labelled=True, maps=True).names
    columns = {name for name in documented("classify") if not name.startswith("DIR/")}
    assert columns == set(names) - SHARED


def test_columns_of_segment() -> None:
    segmenter: Any = SimpleNamespace(classes=["<class>"], object_classes={0: "<class>"})
    assert documented("segment", "fields.parquet") == set(field_schema(segmenter).names) - SHARED
    assert documented("segment", "objects.parquet") == set(object_schema(1).names) - {"model", "weights_sha256"}


def test_columns_of_explain() -> None:
    explainers = (LogitExplainer, AttentionExplainer, PcaExplainer, SimilarityExplainer, CorrespondenceExplainer)
    names = {name for each in explainers for name in explanation_schema(each).names}
    assert documented("explain") - (set(METHODS) - names) == names - SHARED


def test_columns_of_generated_images() -> None:
    for heading, module in (("generate", "generate"), ("attribute walk", "walk")):
        names = documented(heading) - {"direction", "file"}
        assert len(names) > 1 and names <= literals(f"generation/{module}.py"), heading


def test_files_of_directions(tmp_path: Path) -> None:
    Direction(np.ones(4), spread=np.eye(4)).save(tmp_path)
    tensors = set(load_file(tmp_path / "direction.safetensors"))
    assert documented("attribute fit", "direction.safetensors") == tensors
    facts = json.loads((tmp_path / "direction.json").read_text(encoding="utf-8"))
    assert documented("attribute fit", "direction.json") - {"all", "AUROC", "Spearman"} == set(facts)


def test_columns_of_measured_walks(tmp_path: Path) -> None:
    columns = documented("attribute measure", "measures.parquet") - {"p_<class>", "value_<name>"}
    assert columns | set(MORPHOLOGY) >= {*MEASURES, DRIFT} and columns <= {
        *MEASURES,
        *literals("generation/measured.py"),
    }
    frame = pd.DataFrame({"file": ["a"] * 2, "path": ["a"] * 2, "direction": ["activity"] * 2, "step": [0, 1]})
    changes, random = summarise(MeasuredWalks(frame.assign(**dict.fromkeys(MEASURES, 1.0)), "activity"))
    write_changes(tmp_path / "changes.parquet", changes, random)
    names = pq.read_table(tmp_path / "changes.parquet").column_names
    assert documented("attribute measure", "changes.parquet") == set(names)


def test_columns_of_evaluations() -> None:
    known = literals("evaluation/report/evaluation.py")
    for table in ("results.parquet", "predictions.parquet"):
        columns = documented("evaluate knn and probe", table)
        assert len(columns) > 5 and columns <= known, columns - known
    data = from_arrays("cells", [np.eye(4)], [np.eye(4, dtype=np.uint8)], classes=["rings"])
    scored = Scorer()(data, 0, np.stack([1 - np.eye(4), np.eye(4)]), "perfect")
    names = scores_to_table([scored], data.classes).column_names
    assert documented("evaluate segmentation", "per_image.parquet") == set(names)


def test_metrics_of_evaluations() -> None:
    metrics = {name for names in METRICS.values() for name in names}
    assert documented("evaluate knn and probe", "Metrics") == metrics


def test_columns_and_keys_of_retrieval() -> None:
    report = retrieval_report()
    results, queries = report.results_table().column_names, report.queries_table().column_names
    assert documented("evaluate retrieval", "results.parquet (evaluate retrieval)") == set(results)
    assert documented("evaluate retrieval", "queries.parquet") == {*queries, "row", "col"} - set(report.metrics)
    metrics = {re.sub(r"\d+", "k", name) for name in report.metrics}
    assert documented("evaluate retrieval", "Metrics of rankings") == metrics
    keys = documented("evaluate retrieval", "results.json (evaluate retrieval)")
    record = report.record()
    assert set(record) | set(record["summary"][0]) - set(report.metrics) == keys
    assert documented("evaluate retrieval", "Morphology features") == set(MORPHOLOGY)


def test_keys_of_the_results_of_evaluations() -> None:
    record = evaluation(arrays(10)).record()
    keys = set(record) | set(record["summary"][0]) | set(record["comparisons"][0])
    assert documented("evaluate knn and probe", "results.json") == keys - set(METRICS["classes"])


def test_columns_and_keys_of_weights() -> None:
    assert documented("evaluate weights", "distances.parquet") == set(SCHEMA.names)
    row = dict.fromkeys(SCHEMA.names) | {"first": "a", "second": "b", "values": 1, "wasserstein": 0.0, "cosine": 0.0}
    methods = [MethodInfo(name, name, "model", None) for name in "ab"]
    record = WeightsReport(methods, pa.Table.from_pylist([row], SCHEMA), 0, 0.0).record()
    keys = documented("evaluate weights", "results.json (evaluate weights)")
    assert keys == set(record) | set(record["pairs"][0])


def test_columns_and_keys_of_simulated_acquisitions() -> None:
    assert documented("evaluate acquisition", "curves.parquet") == set(CURVE_SCHEMA.names)
    assert documented("evaluate acquisition", "power.parquet") == {field.name for field in fields(PowerRow)}
    row = dict.fromkeys(CURVE_SCHEMA.names, 1) | {"target": "rings"}
    table = pa.Table.from_pylist(
        [row | {"policy": name} for name in ("random", "intensity", "template")], CURVE_SCHEMA
    )
    results = compare(table, 1)
    keys = documented("evaluate acquisition", "results.json (evaluate acquisition)")
    assert keys == set(results) | set(results["policies"][-1])


def test_columns_of_the_evaluation_of_finders() -> None:
    assert documented("evaluate find", "per_image.parquet (evaluate find)") == set(FIND_SCHEMA.names)
    assert documented("evaluate find", "curves.parquet") == set(CURVES.names)
    assert documented("evaluate find", "summary.csv") == set(SUMMARY)


def test_columns_of_finetuning() -> None:
    assert documented("finetune", "curve.csv") == {field.name for field in fields(FinetuneRow)}
    predictions = documented("finetune", "predictions.parquet (classification)") - {"p_<class>"}
    assert len(predictions) > 4 and predictions <= literals("training/classify.py")
    scores = documented("finetune", "per_image.parquet (segmentation)")
    assert len(scores) > 4 and scores <= literals("training/segment.py", "metrics/mask_scores.py")


def test_keys_of_statistics() -> None:
    statistics = Statistics([])
    crop = Crop(np.full((2, 2), 51, np.uint8), Scaling(0, 9, applied=True), source="a")
    statistics.add("train", crops_to_table([crop]).cast(crop_features().arrow_schema))
    assert documented("data stats") == statistics.to_json().keys() - {"format"}


def test_keys_of_manifests() -> None:
    keys = {field.name for field in fields(Manifest)}
    assert documented("Manifest") == keys | {"format", "counts", "rate"}
