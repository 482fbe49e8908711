"""Runs of `evaluate knn` and `evaluate probe`: results, splits and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from stedfm_hf import StedFmModel
from stedfm_hf.cli import main
from stedfm_hf.evaluation import ComparisonResult, evaluate_knn, evaluate_probe, protocol, trials
from stedfm_hf.inference import embed
from stedfm_hf.labels.labelled import read_labelled
from stedfm_hf.labels.splits import split_images
from stedfm_hf.metrics import nearest
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import class_folder, crop_repo, sample_image
from tests.models import tiny_config

CHEAP = ("untrained", "texture", "chance")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    StedFmModel(tiny_config()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folder(tmp_path_factory.mktemp("data") / "set", {"a": 24, "b": 24})


def probe(data: Path, model: str, report: Path, **options: Any) -> ComparisonResult:
    given = {"baselines": [*CHEAP], "device": "cpu", "labels_per_class": ["2", "all"], "repeats": 2, **options}
    return evaluate_probe(data, report, model=[model], **given)


def knn(data: Path, model: str, report: Path, **options: Any) -> ComparisonResult:
    given = {"baselines": [*CHEAP], "device": "cpu", "k": [1, 3], **options}
    return evaluate_knn(data, report, model=[model], **given)


@pytest.fixture(scope="module")
def probed(folder: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> ComparisonResult:
    return probe(folder, model, tmp_path_factory.mktemp("probed") / "out")


def test_results_of_a_probe(folder: Path, model: str, probed: ComparisonResult) -> None:
    result, record = probed, probed.record
    assert [each["key"] for each in record["methods"]] == [model, *CHEAP]
    best = next(row for row in record["summary"] if (row["method"], row["setting"]) == ("texture", "all"))
    assert best["accuracy"]["mean"] == 1.0 and best["accuracy"]["sd"] is None
    splits = split_images(read_labelled(folder), select=False)
    train, test = len(splits.train), len(splits.test)
    assert record["split"]["splits"] == splits.facts() and len(splits.validation)
    assert "a hash of the id of each source image decides" in record["split"]["description"]
    assert f"It is unknown which images {model} was trained on." in record["notes"]
    assert not record["conclusion"]["possible"]
    assert f"only {test} source images" in record["conclusion"]["limitations"][0]
    pairs = {(row["setting"], row["other"]) for row in record["comparisons"]}
    assert pairs == {(setting, other) for setting in ("2", "all") for other in CHEAP}
    assert all(row["p"] <= row["p_holm"] <= 1 for row in record["comparisons"])
    assert result.manifest.counts()["done"] == 48 and result.manifest.exit_status == 0

    results = pq.read_table(result.output / "results.parquet").to_pylist()
    assert len(results) == 4 * (2 + 1)  # methods; two samples of two labels and one run with all labels
    assert {(row["setting"], row["train_images"]) for row in results} == {("2", 4), ("all", train)}
    predictions = pq.read_table(result.output / "predictions.parquet").to_pylist()
    assert len(predictions) == 12 * test
    assert predictions[0].keys() >= {"image_id", "source", "label", "prediction", "probabilities"}
    accuracy = np.mean([row["label"] == row["prediction"] for row in predictions[:test]])
    assert accuracy == pytest.approx(results[0]["accuracy"])


def test_results_are_reproducible(folder: Path, model: str, probed: ComparisonResult, tmp_path: Path) -> None:
    one, other = probed.record, probe(folder, model, tmp_path / "other").record
    assert one["summary"] == other["summary"] and one["comparisons"] == other["comparisons"]


def test_the_same_command_reads_its_results_and_other_settings_raise_an_error(
    folder: Path, model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = probe(folder, model, out)
    written = (out / "results.json").stat().st_mtime_ns
    assert probe(folder, model, out).record == first.record
    assert (out / "results.json").stat().st_mtime_ns == written
    with pytest.raises(UserError, match=r"made with other settings \(repeats: 2 before, 3 now\)"):
        probe(folder, model, out, repeats=3)
    assert probe(folder, model, out, repeats=3, overwrite=True).record["settings"]["repeats"] == 3
    (out / "report.html").unlink()  # as after an interruption: the same command writes it again
    assert (probe(folder, model, out, repeats=3).output / "report.html").is_file()


def test_a_folder_with_other_files_is_not_changed(folder: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds other files, such as notes.txt"):
        probe(folder, model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_existing_splits_are_kept_and_leaking_splits_raise_an_error(model: str, tmp_path: Path) -> None:
    def rows(prefix: str, count: int) -> list[tuple[str | None, str]]:
        return [("ab"[number % 2], f"{prefix}{number}") for number in range(count)]

    repo = crop_repo(tmp_path / "good", {"train": rows("t", 8), "validation": rows("v", 4), "test": rows("x", 6)})
    record = probe(repo, model, tmp_path / "out").record
    assert record["split"]["description"] == "The splits are those of the data set."
    assert record["split"]["splits"]["test"] == {"images": 6, "sources": 6, "classes": {"a": 3, "b": 3}}
    bad = crop_repo(tmp_path / "bad", {"train": rows("t", 8), "test": [("a", "t0"), ("b", "new")]})
    with pytest.raises(UserError, match="source image 't0' is in train .* and in test"):
        probe(bad, model, tmp_path / "other")


def test_too_few_images_of_a_class_raise_an_error_early(model: str, tmp_path: Path) -> None:
    data = class_folder(tmp_path / "set", {"rings": 20, "6hMeOH": 6})
    with pytest.raises(UserError, match="cannot sample 5 images per class, because 6hMeOH has [2345]; choose"):
        probe(data, model, tmp_path / "out", labels_per_class=["5"])
    with pytest.raises(UserError, match="is not a number of images"):
        probe(data, model, tmp_path / "out", labels_per_class=["many"])
    assert not (tmp_path / "out").exists()


def test_a_corrupt_image_is_reported_with_status_1(
    folder: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_folder(tmp_path / "set", {"a": 12, "b": 12})
    (data / "b" / "005.tif").write_bytes(b"II*\0no image")
    words = ["evaluate", "probe", "--dataset", str(data), "--model", model, "--labels-per-class", "2"]
    words += ["--repeats", "1", "--baselines", "histogram", "--output", str(tmp_path / "out"), "--json"]
    assert main(words) == 1
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert list(record["data"]["failed"]) == ["b/005.tif"] and "b/005.tif" in captured.err
    assert sum(split["images"] for split in record["split"]["splits"].values()) == 23
    assert json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["counts"]["failed"] == 1


def test_invalid_arguments_have_status_2(
    folder: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "knn", "--dataset", str(folder), "--model", model, "--output", str(tmp_path / "out")]
    for more, message in (
        (["--baselines", "nothing"], "baselines 'nothing' is unknown"),
        (["--baselines", "none", "chance"], "none cannot be combined"),
        (["--protocol", "other"], "protocol 'other' is unknown"),
        (["--protocol", "reference", "--leave-one-out"], "leave out --leave-one-out"),
        (["--protocol", "reference", "--split", "all", "--target", "x"], "whose names are the labels"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err


def test_leave_one_out_excludes_the_same_source(model: str, tmp_path: Path) -> None:
    """Every image occurs twice and classes are arbitrary: only neighbours of the same source are right."""
    data = tmp_path / "set"
    for number in range(24):
        (data / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        for copy in range(2):
            tifffile.imwrite(data / "ab"[number % 2] / f"cell{number}_{copy}.tif", sample_image(0, number))
    by_image = knn(data, model, tmp_path / "leaking", leave_one_out=True, source_pattern=r"cell\d+_\d").record
    by_source = knn(data, model, tmp_path / "honest", leave_one_out=True, source_pattern=r"cell\d+").record
    copies = knn(data, model, tmp_path / "copies", leave_one_out=True).record
    assert copies["summary"][0]["accuracy"] == by_source["summary"][0]["accuracy"], "copies have the same source"
    assert [row["setting"] for row in by_source["summary"]][:3] == [
        "1 neighbour",
        "3 neighbours",
        "3 neighbours, weighted (T = 0.07)",
    ]
    assert by_source["split"]["description"].startswith(
        "Leave-one-out: every image is classified by its neighbours among the images of all other source images"
    )
    assert (
        by_source["split"]["splits"]["test"]["sources"] == 24 and by_image["split"]["splits"]["test"]["sources"] == 48
    )
    assert by_image["summary"][0]["accuracy"]["mean"] == 1.0 and by_source["summary"][0]["accuracy"]["mean"] < 0.8


@pytest.mark.parametrize(("device", "searched"), [("cuda:1", "cuda:1"), ("mps", "cpu"), ("cpu", "cpu")])
def test_neighbours_are_searched_on_the_device_of_the_model(
    device: str, searched: str, folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except on Apple GPUs, which do not support double precision."""
    devices = []

    def spy(*embeddings: Any, device: torch.device | str, **options: Any) -> Any:
        devices.append(str(device))
        return nearest(*embeddings, **options)

    monkeypatch.setattr(protocol, "choose_device", lambda asked: torch.device(device))
    monkeypatch.setattr(trials, "nearest", spy)
    knn(folder, model, tmp_path / "out", baselines=["histogram"])
    assert devices == [searched] * 2


def test_the_reference_protocol_uses_the_validation_split(model: str, tmp_path: Path) -> None:
    def rows(prefix: str, count: int) -> list[tuple[str | None, str]]:
        return [("ab"[number % 2], f"{prefix}{number}") for number in range(count)]

    repo = crop_repo(tmp_path / "set", {"train": rows("t", 4), "validation": rows("v", 12), "test": rows("x", 10)})
    record = knn(repo, model, tmp_path / "out", protocol="reference").record
    table = embed(repo, model=model, device="cpu").table.to_pylist()
    by_split: dict[str, list[Any]] = {}
    for row in table:
        by_split.setdefault(row["path"].split("/")[0], []).append(row["embedding"])
    splits = read_labelled(repo)
    neighbours, _ = nearest(np.array(by_split["validation"]), np.array(by_split["test"]), k=10)
    accuracies = []
    for k in range(3, 11):
        votes = [np.bincount(row[:k]) for row in splits["validation"].labels[neighbours]]
        pairs = zip(votes, splits["test"].labels, strict=True)
        accuracies.append(np.mean([each.argmax() == label and each.max() > 1 for each, label in pairs]))
    found = record["summary"][0]
    assert found["accuracy"] == pytest.approx({"mean": np.mean(accuracies), "sd": np.std(accuracies)})
    for split in ("train", "val"):
        class_folder(tmp_path / "two" / split, {"a": 3, "b": 3}, size=16 if split == "val" else 32)
    with pytest.raises(UserError, match="needs a validation split, but there is none"):
        knn(tmp_path / "two", model, tmp_path / "other", protocol="reference")


def test_regression(model: str, tmp_path: Path) -> None:
    metadata = [{"nm": 20.0 * (number % 3) + 0.1 * number} for number in range(30)]
    rows: list[tuple[str | None, str]] = [(None, f"s{number}") for number in range(30)]
    repo = crop_repo(tmp_path / "set", {"train": rows}, metadata)
    record = probe(repo, model, tmp_path / "out", target="nm", labels_per_class=["10", "all"]).record
    assert record["data"]["task"] == "regression" and record["primary_metric"] == "r2"
    assert {"r2", "pearson_r", "mae"} <= set(record["summary"][0])
    with pytest.raises(UserError, match="needs one class for each image"):
        knn(repo, model, tmp_path / "other", target="nm")


def test_multilabel(model: str, tmp_path: Path) -> None:
    import datasets

    labels = [["grain"] * (number % 2) + ["bright"] * (number % 4 > 1) for number in range(40)]
    images = [(sample_image(number % 2, number) // (1 + (number % 4 < 2))).astype(np.uint8) for number in range(40)]
    (tmp_path / "set" / "data").mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.List(datasets.Value("string"))})
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(
        tmp_path / "set" / "data" / "train-00000-of-00001.parquet"
    )
    record = probe(tmp_path / "set", model, tmp_path / "out").record
    assert record["data"]["task"] == "multilabel" and record["data"]["classes"] == ["bright", "grain"]
    assert {"label_accuracy", "macro_f1", "mean_average_precision"} <= set(record["summary"][0])
