"""Runs of `evaluate retrieval`: metrics of each query, excluded images, protocols and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from stedfm_hf import StedFmModel
from stedfm_hf.cli import main
from stedfm_hf.evaluation import RetrievalResult, evaluate_retrieval
from stedfm_hf.evaluation.rankings import WITH_QUERY, rank_images
from stedfm_hf.evaluation.settings import RETRIEVAL_BASELINES
from stedfm_hf.evaluation.splits import exclude_training_images, searched_split
from stedfm_hf.inference import embed
from stedfm_hf.labels.labelled import read_labelled
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import arrays, class_folder, crop_repo, sample_image
from tests.models import tiny_config

CHEAP = ("histogram", "morphology", "chance")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    StedFmModel(tiny_config()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folder(tmp_path_factory.mktemp("data") / "set", {"a": 12, "b": 12})


def retrieve(data: Path, model: str, report: Path, **options: Any) -> RetrievalResult:
    given = {"baselines": [*CHEAP], "device": "cpu", "k": [1, 5], **options}
    return evaluate_retrieval(data, report, model=[model], **given)


def queries(report: Path, method: str, setting: str) -> list[dict[str, Any]]:
    rows = pq.read_table(report / "queries.parquet").to_pylist()
    return [row for row in rows if (row["method"], row["setting"]) == (method, setting)]


def similarities(data: Path, model: str) -> np.ndarray:
    """Cosine similarities of all images, in double precision."""
    embeddings = np.array(embed(data, model=model, device="cpu").table["embedding"].to_pylist())
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return unit @ unit.T


def test_every_query_equals_scikit_learn(folder: Path, model: str, tmp_path: Path) -> None:
    record = retrieve(folder, model, tmp_path / "out").record
    similarity, data = similarities(folder, model), read_labelled(folder)["all"]
    rows = queries(tmp_path / "out", model, "all others")
    assert [row["image_id"] for row in rows] == data.image_ids.tolist()
    for number, row in enumerate(rows):
        others = np.arange(24) != number  # the query never counts
        truth, score = data.labels[others] == data.labels[number], similarity[number, others]
        assert (row["ranked"], row["relevant"]) == (23, 11)
        assert row["aupr"] == pytest.approx(average_precision_score(truth, score), abs=1e-5)
        assert row["auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-5)
        assert row["precision_at_5"] == pytest.approx(truth[np.argsort(-score)[:5]].mean())
    summary = next(row for row in record["summary"] if (row["method"], row["setting"]) == (model, "all others"))
    values = np.array([row["aupr"] for row in rows])
    assert summary["aupr"]["mean"] == pytest.approx(values.mean())
    assert summary["aupr"]["low"] < values.mean() < summary["aupr"]["high"]
    assert summary["aupr"]["macro"] == pytest.approx((values[:12].mean() + values[12:].mean()) / 2)
    assert list(summary["per_class"].values()) == pytest.approx([values[:12].mean(), values[12:].mean()])
    assert summary["macro_interval"][0] < summary["aupr"]["macro"] < summary["macro_interval"][1]


def test_results_and_report(folder: Path, model: str, tmp_path: Path) -> None:
    result = retrieve(folder, model, tmp_path / "out")
    record = result.record
    assert [each["key"] for each in record["methods"]] == [model, *CHEAP]
    assert record["primary_metric"] == "aupr" and record["data"]["queries"] == 24
    assert {row["setting"] for row in record["summary"]} == {"other sources", "all others"}
    chance = next(row for row in record["summary"] if row["method"] == "chance")
    assert chance["auroc"]["mean"] == 0.5
    assert chance["aupr"]["mean"] == chance["precision_at_1"]["mean"] == pytest.approx(11 / 23)
    assert {row["other"] for row in record["comparisons"]} == set(CHEAP)
    assert all(row["p"] <= row["p_holm"] <= 1 for row in record["comparisons"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "mAP@5" in page and "Ranked: other sources" in page and "Morphology: 13 features" in page
    results = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert len(results) == 4 * 2 * 5 and {row["metric"] for row in results} == set(record["metrics"])
    assert result.summary().count("ranked: ") == 1, "without several images of a source, both settings are the same"
    assert result.manifest.counts()["done"] == 24
    assert retrieve(folder, model, tmp_path / "out").record == record, "the same command reads its results"
    with pytest.raises(UserError, match="made with other settings"):
        retrieve(folder, model, tmp_path / "out", k=[2])


def test_images_of_the_same_source_are_excluded_by_default(model: str, tmp_path: Path) -> None:
    """Every image occurs twice and classes are arbitrary: only its copy is certainly of its class."""
    data = tmp_path / "set"
    for number in range(24):
        (data / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        for copy in range(2):
            tifffile.imwrite(data / "ab"[number % 2] / f"cell{number}_{copy}.tif", sample_image(0, number))
    result = retrieve(data, model, tmp_path / "out", source_pattern=r"cell\d+")
    by_setting = {row["setting"]: row for row in result.record["summary"] if row["method"] == model}
    assert by_setting["all others"]["precision_at_1"]["mean"] == 1.0
    assert by_setting["other sources"]["precision_at_1"]["mean"] < 0.8
    assert {row["ranked"] for row in queries(tmp_path / "out", model, "other sources")} == {46}
    assert {row["ranked"] for row in queries(tmp_path / "out", model, "all others")} == {47}
    assert result.summary().count("ranked: ") == 2


def test_the_reference_protocol_counts_the_query(folder: Path, model: str, tmp_path: Path) -> None:
    record = retrieve(folder, model, tmp_path / "out", protocol="reference").record
    similarity, labels = similarities(folder, model), read_labelled(folder)["all"].labels
    np.fill_diagonal(similarity, 1.0)
    expected = np.mean([roc_auc_score(labels == labels[number], similarity[number]) for number in range(24)])
    assert record["primary_metric"] == "auroc" and record["metrics"] == ["aupr", "auroc"]
    assert record["summary"][0]["auroc"]["mean"] == pytest.approx(expected, abs=1e-5)
    same = rank_images(np.eye(3), np.zeros(3, int), np.arange(3), ks=[], reference=True)[WITH_QUERY]
    assert same.values["auroc"].tolist() == [1.0, 1.0, 1.0], "all images are relevant"


def test_queries_without_relevant_images_are_counted(model: str, tmp_path: Path) -> None:
    rows = [("a", "s0"), ("a", "s1"), ("a", "s2"), ("b", "s3"), ("b", "s3"), ("b", "s3")]
    repo = crop_repo(tmp_path / "set", {"train": [("a", "t0"), ("b", "t1")], "test": [(each, s) for each, s in rows]})
    record = retrieve(repo, model, tmp_path / "out").record
    assert record["split"]["splits"]["test"]["images"] == 6, "only the test split is searched"
    by_setting = {row["setting"]: row for row in record["summary"] if row["method"] == model}
    assert (by_setting["other sources"]["queries"], by_setting["other sources"]["without_relevant"]) == (3, 3)
    assert by_setting["other sources"]["per_class"]["b"] is None and by_setting["all others"]["queries"] == 6
    assert any("3 of 6 queries have no value" in note for note in record["notes"])
    assert retrieve(repo, model, tmp_path / "train", split="train").record["data"]["queries"] == 2


def test_a_corrupt_image_is_reported_with_status_1(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_folder(tmp_path / "set", {"a": 4, "b": 4})
    (data / "b" / "002.tif").write_bytes(b"II*\0no image")
    words = ["evaluate", "retrieval", "--dataset", str(data), "--model", model, "--baselines", "texture"]
    assert main([*words, "--output", str(tmp_path / "out"), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert list(record["data"]["failed"]) == ["b/002.tif"] and record["data"]["queries"] == 7


def test_invalid_arguments_raise_errors(folder: Path, model: str, tmp_path: Path) -> None:
    for options, message in (
        ({"baselines": ["none", "chance"]}, "none cannot be combined"),
        ({"k": [0]}, "k is 0"),
        ({"split": "nothing"}, "has no split 'nothing'"),
        ({"baselines": ["wrong"]}, "baselines 'wrong' is unknown"),
    ):
        with pytest.raises(UserError, match=message):
            retrieve(folder, model, tmp_path / "out", **options)
    metadata = [{"nm": 0.5 * number} for number in range(8)]
    repo = crop_repo(tmp_path / "numbers", {"train": [(None, f"s{number}") for number in range(8)]}, metadata)
    with pytest.raises(UserError, match="needs one class for each image"):
        retrieve(repo, model, tmp_path / "out", target="nm")


def test_all_baselines(folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    record = retrieve(folder, model, tmp_path / "out", baselines=[*RETRIEVAL_BASELINES], zscore=True).record
    assert [each["key"] for each in record["methods"]] == [model, *(b for b in RETRIEVAL_BASELINES if b != "imagenet")]


def test_the_note_on_a_packaged_model_states_its_training_images() -> None:
    models = {"demo": "demo", "other": "no-one/no-model"}
    kept, notes = exclude_training_images(models, arrays(4, size=8))
    assert kept.all()
    assert notes == ["demo was trained on simulated images only.", "It is unknown which images other was trained on."]
    assert searched_split({"all": arrays(4, size=8)}, None).counts() == "12 images"
