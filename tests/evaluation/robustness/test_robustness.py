"""Runs of `evaluate robustness`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from stedfm_hf import StedFmForImageClassification, StedFmModel
from stedfm_hf.cli import main
from stedfm_hf.evaluation import RobustnessResult, evaluate_robustness
from stedfm_hf.evaluation.probe import select_C
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import class_folder, crop_repo
from tests.models import tiny_config


@pytest.fixture(scope="module", autouse=True)
def two_values_of_C() -> Iterator[None]:
    """Select the penalty of the probes from two values: tests/evaluation/test_probe.py selects from all."""
    with pytest.MonkeyPatch.context() as patch:
        assert select_C.__kwdefaults__ is not None
        patch.setitem(select_C.__kwdefaults__, "C_grid", (1e-2, 1.0))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, and a classifier that knows the classes in another order."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    StedFmModel(tiny_config()).save_pretrained(folder / "tiny")
    config = tiny_config(id2label={0: "b", 1: "other", 2: "a"})
    StedFmForImageClassification(config).save_pretrained(folder / "classifier")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folder(tmp_path_factory.mktemp("data") / "set", {"a": 24, "b": 24})


def robustness(data: Path, model: Path, output: Path, **options: Any) -> RobustnessResult:
    given: dict[str, Any] = {
        "baselines": ["texture", "chance"],
        "families": ["photons", "drift", "gain", "flip"],
        "repeats": 2,
        "device": "cpu",
        "cache": output.parent / "cache",
    }
    return evaluate_robustness(data, output, model=[str(model)], **(given | options))


def test_results(models: Path, tmp_path: Path) -> None:
    rows_of = [("ab"[number % 2], f"s{number}") for number in range(50)]
    repo = crop_repo(tmp_path / "set", {"train": rows_of[:26], "test": rows_of[26:]})
    result = robustness(repo, models / "tiny", tmp_path / "out", families=["photons", "pixel-size", "gain", "flip"])
    record = result.record
    assert [each["key"] for each in record["methods"]] == [str(models / "tiny"), "texture", "chance"]
    rows = {(row["method"], row["family"], row["label"]): row for row in record["accuracy"]}
    assert rows["texture", "photons", "unchanged"]["mean"] == 1.0
    assert rows["texture", "photons", "2 counts"]["loss_high"] >= rows["texture", "photons", "2 counts"]["loss"] > 0
    assert rows["texture", "gain", "200 %"]["mean"] == 1.0
    assert rows["chance", "gain", "200 %"]["loss"] == 0
    tolerances = {(row["method"], row["family"]): row for row in record["tolerance"]}
    photons = tolerances["texture", "photons"]
    assert photons["unit"] == "counts" and photons["tolerance"] > 2 and "counts" in photons["text"]
    assert tolerances["texture", "gain"]["text"] == "> 200 %"
    assert tolerances["texture", "pixel-size"]["unit"] == "px" and not tolerances["texture", "flip"]["ordered"]
    assert tolerances["chance", "gain"]["reason"].endswith("above chance")
    assert {row["family"] for row in record["ranking"]} == {"photons", "pixel-size", "gain", "flip"}
    assert any("pixel size of some images is unknown" in note for note in record["notes"])
    assert any("taken as photon counts" in note for note in record["notes"])
    effects = {(row["method"], row["family"], row["label"]): row for row in record["effects"]}
    assert effects["texture", "photons", "2 counts"]["called"] and not effects["texture", "gain", "50 %"]["called"]
    assert effects["texture", "photons", "2 counts"]["size"] > 1
    readout = {(row["method"], row["family"]): row for row in record["readout"]}
    assert readout["texture", "photons"]["pearson_r"] > 0.8 and (readout["texture", "gain"]["pearson_r"] or 0.0) < 0.5
    scores = {(row["method"], row["family"]): row for row in record["scores"]}
    assert scores["texture", "gain"]["silhouette_batch"] > scores["texture", "photons"]["silhouette_batch"]
    table = pq.read_table(tmp_path / "out" / "accuracy.parquet")
    assert len(table) == len(record["accuracy"]) == 3 * (6 + 6 + 3 + 3)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Tolerance" in page and "What to standardise first" in page and "excitation power" in page
    assert "photons" in json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["families"]


def test_the_batch_size_changes_nothing_and_other_settings_are_refused(
    data: Path, models: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"families": ["photons"], "repeats": 1}
    one = robustness(data, models / "tiny", tmp_path / "one", **options).record
    other = robustness(data, models / "tiny", tmp_path / "two", batch_size=1, cache=None, **options).record
    assert one["accuracy"] == other["accuracy"] and one["tolerance"] == other["tolerance"]
    assert robustness(data, models / "tiny", tmp_path / "one", **options).record == one
    with pytest.raises(UserError, match="made with other settings"):
        robustness(data, models / "tiny", tmp_path / "one", families=["gain"], repeats=1)


def test_a_classifier_is_scored_with_its_head(
    data: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"families": ["gain"], "repeats": 1, "baselines": ["none"]}
    record = robustness(data, models / "classifier", tmp_path / "out", **options).record
    keys = [each["key"] for each in record["methods"]]
    assert keys == [str(models / "classifier"), f"{models / 'classifier'} (head)"]
    other = class_folder(tmp_path / "other", {"x": 12, "b": 12})
    record = robustness(other, models / "classifier", tmp_path / "again", **options).record
    assert len(record["methods"]) == 1
    assert "does not know x; it predicts b, other, a" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["default", "reference"])
def test_regression(models: Path, tmp_path: Path, protocol: str) -> None:
    rows: list[tuple[str | None, str]] = [("ab"[number % 2], f"s{number}") for number in range(40)]
    metadata = [{"nm": 40.0 * (number % 2) + 0.1 * number} for number in range(40)]
    repo = crop_repo(tmp_path / "set", {"train": rows}, metadata)
    families = ["gaussian-noise"] if protocol == "reference" else ["gain"]
    record = robustness(
        repo, models / "tiny", tmp_path / "out", target="nm", families=families, repeats=1, protocol=protocol
    ).record
    assert record["primary_metric"] == ("pearson_r" if protocol == "reference" else "r2")
    texture = next(row for row in record["accuracy"] if row["method"] == "texture")
    assert texture["mean"] > 0.8 and texture["low"] < texture["mean"]


def test_real_batches_of_a_data_set(models: Path, tmp_path: Path) -> None:
    rows: list[tuple[str | None, str]] = [("ab"[number % 2], f"s{number}") for number in range(48)]
    metadata = [{"day": ["Monday", "Tuesday"][number % 4 > 1], "one": "same", "x": number} for number in range(48)]
    repo = crop_repo(tmp_path / "set", {"train": rows[:24], "test": rows[24:]}, metadata)
    options: dict[str, Any] = {"families": ["none"], "repeats": 1}
    result = robustness(repo, models / "tiny", tmp_path / "out", family_column=["day"], **options)
    record = result.record
    assert record["families"] == record["accuracy"] == record["effects"] == []
    effects = {row["method"]: row for row in record["column_effects"]}
    assert not effects["texture"]["called"] and effects["texture"]["p_value"] > 0.01
    by_batch = {(row["method"], row["batch"]): row for row in record["batches"]}
    assert sum(row["images"] for key, row in by_batch.items() if key[0] == "texture") == 24
    new = {(row["method"], row["batch"]): row for row in record["new_batches"]}
    assert new["texture", "Monday"]["new_batch"] == new["texture", "Monday"]["known_batch"] == 1.0
    assert new["texture", "Monday"]["images"] == 24 and new["texture", "Monday"]["p_holm"] == 1.0
    assert {row["method"] for row in record["column_scores"]} == {str(models / "tiny"), "texture"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Real batches: day" in page and "New batches: day" in page
    assert "In 48 source images of all splits, no effect of day on embeddings is shown" in page
    assert result.summary().startswith("effect on embeddings (* called)")
    for column, message in (("one", "the same value for all"), ("nothing", "has no column or metadata 'nothing'")):
        with pytest.raises(UserError, match=message):
            robustness(repo, models / "tiny", tmp_path / "other", family_column=[column], **options)


def test_real_batches_of_a_folder_come_from_a_table(data: Path, models: Path, tmp_path: Path) -> None:
    table = tmp_path / "days.csv"
    lines = [f"{name}/{n:03d}.tif,{['Monday', 'Tuesday'][n % 2]},{n % 3}" for name in "ab" for n in range(24)]
    table.write_text("\n".join(["path,day,laser", *lines]), encoding="utf-8")
    options: dict[str, Any] = {"families": ["none"], "repeats": 1, "baselines": ["none"]}
    with pytest.raises(UserError, match=r"without a column day\. Give a table"):
        robustness(data, models / "tiny", tmp_path / "out", family_column=["day"], **options)
    record = robustness(
        data, models / "tiny", tmp_path / "out", family_column=["day", "laser"], annotations=table, **options
    ).record
    assert {row["family"] for row in record["column_effects"]} == {"day", "laser"}
    assert {row["batch"] for row in record["new_batches"] if row["column"] == "laser"} == {"0", "1", "2"}


def test_nearest_neighbours(data: Path, models: Path, tmp_path: Path) -> None:
    record = robustness(data, models / "tiny", tmp_path / "out", families=["gain"], classifier="knn", k=3).record
    texture = next(row for row in record["accuracy"] if row["method"] == "texture")
    assert texture["mean"] == 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--families", "mixed"], "family mixed does not belong to the protocol default"),
        (["--families", "none"], "there is nothing to evaluate"),
        (["--annotations", "days.csv"], "annotations are only read with --family-column"),
        (["--families", "none", "gain"], "none cannot be combined with other families"),
        (["--protocol", "reference", "--families", "psf"], "does not belong to the protocol reference"),
        (["--peak-counts", "0"], "peak_counts is 0"),
    ],
)
def test_wrong_arguments(words: list[str], message: str, data: Path, tmp_path: Path, capsys: Any) -> None:
    line = ["evaluate", "robustness", "--model", "demo", "--dataset", str(data), "--output", str(tmp_path / "out")]
    assert main([*line, *words]) == 2
    assert message in capsys.readouterr().err


def test_seeds_of_the_training_samples_differ() -> None:
    from stedfm_hf.evaluation.robustness.probes import training_sample
    from tests.labels.labelled_data import arrays

    data = arrays(10, "ab", per_source=2)
    samples = [training_sample(data, seed) for seed in range(3)]
    assert all(len(sample) == 16 for sample in samples)  # one source image of two crops less in each class
    assert len({tuple(sample.tolist()) for sample in samples}) > 1
    assert all(np.array_equal(training_sample(data, seed), sample) for seed, sample in enumerate(samples))


def test_a_known_batch_has_as_many_training_images_of_each_class() -> None:
    from stedfm_hf.evaluation.robustness.batches import matching_sample
    from tests.labels.labelled_data import arrays

    data = arrays(20, "ab", per_source=2)
    train = np.concatenate([np.flatnonzero(data.labels == 0)[:7], np.flatnonzero(data.labels == 1)[:4]])
    pool = np.arange(4, len(data))
    sample = matching_sample(data, pool, train, np.random.default_rng(0))
    assert np.bincount(data.labels[sample]).tolist() == [7, 4]
    assert np.isin(sample, pool).all() and len(set(sample.tolist())) == 11
    assert len(set(data.sources[sample].tolist())) <= 7  # whole sources


def test_few_source_images_have_no_interval_and_no_cost(data: Path, models: Path, tmp_path: Path) -> None:
    table = tmp_path / "days.csv"
    lines = [f"{name}/{n:03d}.tif,{'Monday' if n > 1 else 'Tuesday'}" for name in "ab" for n in range(24)]
    table.write_text("\n".join(["path,day", *lines]), encoding="utf-8")
    options: dict[str, Any] = {"families": ["none"], "repeats": 1, "baselines": ["none"]}
    record = robustness(
        data, models / "tiny", tmp_path / "out", family_column=["day"], annotations=table, **options
    ).record
    new = {row["batch"]: row for row in record["new_batches"]}
    assert new["Tuesday"]["reason"] == "fewer than 5 source images" and new["Tuesday"]["p_holm"] is None
    assert all(row["low"] is None for row in record["batches"] if row["sources"] < 5)
