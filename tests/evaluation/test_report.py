"""Reports of `evaluate knn` and `evaluate probe`: figures, tables and texts."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stedfm_hf.evaluation.report import Evaluation, MethodInfo, write_report
from stedfm_hf.evaluation.scoring import Run, compare, compute_metrics, summarise
from stedfm_hf.evaluation.splits import leave_one_out
from stedfm_hf.labels.labelled import LabelledImages, from_arrays
from stedfm_hf.labels.splits import Splits
from tests.labels.labelled_data import arrays


def split_by_class(data: LabelledImages) -> Splits[LabelledImages]:
    """Use three fifths of each class and its sources for train, a fifth each for validation and test."""
    fifth = np.array([int(source.strip("abc")) for source in data.sources.tolist()]) % 5
    return Splits(data.take(fifth < 3), data.take(fifth == 3), data.take(fifth == 4), "Three fifths are train.")


def evaluation(data: LabelledImages, *, accuracy: float = 0.9, command: str = "evaluate probe") -> Evaluation:
    """Evaluate a model with a given accuracy, and a baseline that guesses."""
    splits = split_by_class(data)
    test, rng = splits.test, np.random.default_rng(0)
    count, runs = len(test.classes), []
    for key, rate in (("good", accuracy), ("guess", 1 / max(count, 2))):
        for setting, seed in (("5", 0), ("5", 1), ("all", 0)):
            if test.task == "regression":
                found = test.labels + rng.normal(size=len(test)) * (1 - rate)
                runs.append(
                    Run(key, setting, seed, found, None, 5, 0.1, "validation", compute_metrics(test, found, None))
                )
                continue
            predicted = np.where(rng.random(len(test)) < rate, test.labels, rng.integers(0, count, len(test)))
            probabilities = np.full((len(test), count), 0.1 / (count - 1))
            probabilities[np.arange(len(test)), predicted] = 0.9
            metrics = compute_metrics(test, predicted, probabilities)
            runs.append(Run(key, setting, seed, predicted, probabilities, 5, 0.1, "validation", metrics))
    return Evaluation(
        command=command,
        splits=splits,
        data_notes=["It is unknown which images good was trained on."],
        methods=[
            MethodInfo("good", "A <good> model", "model", "abc"),
            MethodInfo("guess", "Guess", "baseline", None),
        ],
        runs=runs,
        summary=summarise(test, runs),
        comparisons=compare(test, runs, ["good"]),
        settings={"protocol": "default"},
        failed={"a/bad.tif": "is empty"},
        seconds={"embedding": 1.0},
    )


def write_page(each: Evaluation, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    write_report(each, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def simulated(splits: Splits[LabelledImages]) -> Splits[LabelledImages]:
    named: dict[str, Any] = {
        name: dataclasses.replace(images, simulated=True) for name, images in splits.named().items()
    }
    return dataclasses.replace(splits, **named)


def test_the_page_shows_results_and_protocol(tmp_path: Path) -> None:
    page = write_page(evaluation(arrays(120, per_source=2)), tmp_path)
    assert "A &lt;good&gt; model" in page and "<good>" not in page
    assert "Three fifths are train. No source image is in two splits." in page
    assert "It is unknown which images good was trained on." in page
    assert page.count("data:image/png") == 3 and not re.search(r"(src|href)=\"(?!data:)", page)
    assert "significantly better than Guess" in page and "No conclusion" not in page and "imulated" not in page
    assert "a/bad.tif" in page and "Holm" in page
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.{kind}" for name in ("curve", "confusion", "calibration") for kind in ("png", "svg")}
    assert files == figures | {
        "report.html",
        "results.json",
        "results.parquet",
        "predictions.parquet",
    }


def test_the_page_warns_about_few_sources(tmp_path: Path) -> None:
    page = write_page(evaluation(arrays(12)), tmp_path)
    assert "No conclusion can be drawn: the test has only 6 source images" in page
    assert "fewer than 5 source images of a (2), b (2), c (2)" in page and "better than" not in page
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert record["conclusion"]["possible"] is False


def test_the_page_says_that_images_are_simulated(tmp_path: Path) -> None:
    each = evaluation(arrays(120))
    page = write_page(dataclasses.replace(each, splits=simulated(each.splits)), tmp_path)
    assert "(simulated images)" in page and "results on real images may differ" in page
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["data"]["simulated"] is True


@pytest.mark.figures
def test_pages_of_neighbours_and_of_regression(tmp_path: Path) -> None:
    page = write_page(evaluation(arrays(60), command="evaluate knn"), tmp_path / "knn")
    assert "without training on the labels" in page and not (tmp_path / "knn" / "figures" / "curve.png").exists()
    values = np.random.default_rng(0).normal(size=120)
    numbers = from_arrays("sizes", [np.eye(8)] * 120, list(values))
    page = write_page(evaluation(numbers), tmp_path / "numbers")
    assert "an R² of" in page and "ridge regression" in page
    assert (tmp_path / "numbers" / "figures" / "predicted.png").is_file()


def test_tables_have_one_row_for_each_run_and_prediction(tmp_path: Path) -> None:
    each = evaluation(arrays(60))
    write_page(each, tmp_path)
    results = pq.read_table(tmp_path / "results.parquet")
    assert results.num_rows == 6 and {"accuracy", "macro_f1", "confusion_matrix"} <= set(results.column_names)
    predictions = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert len(predictions) == 6 * len(each.test)
    assert {row["label"] for row in predictions} == {"a", "b", "c"}
    assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-5) for row in predictions)


def test_means_and_standard_deviations_are_over_samples() -> None:
    each = evaluation(arrays(60))
    row = each.row("good", "5")
    values = [run.metrics["accuracy"] for run in each.runs if (run.method, run.setting) == ("good", "5")]
    assert row["accuracy"] == {"mean": pytest.approx(np.mean(values)), "sd": pytest.approx(np.std(values, ddof=1))}
    assert row["interval"][0] <= row["accuracy"]["mean"] <= row["interval"][1] and row["runs"] == 2
    assert each.row("good", "all")["accuracy"]["sd"] is None


def test_significance_of_comparisons() -> None:
    same = evaluation(arrays(120), accuracy=1 / 3)
    assert all(row["p_holm"] > 0.05 for row in same.comparisons)
    other = evaluation(arrays(120))
    assert all(row["p_holm"] < 0.01 and row["low"] > 0 for row in other.comparisons)


def knn_evaluation(per_class: int, k: list[int], *, one_split: bool = True, protocol: str = "default") -> Evaluation:
    """Evaluate neighbours on a data set with a given number of images per class."""
    each = evaluation(arrays(max(per_class, 10)), command="evaluate knn")
    if one_split:
        each = dataclasses.replace(each, splits=leave_one_out({"all": arrays(per_class)}))
    names = [f"{number} neighbours" for number in k] + [f"{max(k)} neighbours, weighted (T = 0.07)"]
    runs = [dataclasses.replace(each.runs[0], setting=name) for name in names]
    return dataclasses.replace(each, runs=runs, settings={"protocol": protocol, "k": k})


def test_values_of_k_above_half_a_class_are_reported(tmp_path: Path) -> None:
    each = knn_evaluation(10, [1, 4, 5, 20])
    # An image has nine others of its class: three of five neighbours would have to be among them.
    assert each.too_large_ks() == [5, 20] and each.main_setting == "4 neighbours"
    (note,) = [line for line in each.notes() if "outvote" in line]
    assert "a, has 10 images, and each image is compared with the others only. With k = 5 or 20" in note
    assert each.record()["notes"] == each.notes()
    all_too_large = knn_evaluation(3, [2, 5])
    assert all_too_large.too_large_ks() == [2, 5] and all_too_large.main_setting == "2 neighbours"


def test_small_values_of_k_are_not_reported() -> None:
    assert knn_evaluation(2, [1]).too_large_ks() == []
    many = knn_evaluation(60, [1, 5, 20])
    assert many.too_large_ks() == [] and many.main_setting == "20 neighbours, weighted (T = 0.07)"
    assert not any("outvote" in line for line in many.notes())
    assert knn_evaluation(10, [20], protocol="reference").too_large_ks() == [], "its values of k are fixed"
    probe = evaluation(arrays(6))
    assert probe.too_large_ks() == [] and probe.main_setting == "all"


def test_the_class_size_without_leave_one_out() -> None:
    each = knn_evaluation(50, [14, 16], one_split=False)
    assert set(each.splits.train.counts().values()) == {30} and each.too_large_ks() == [16]
    assert "compared with the others only" not in " ".join(each.notes())


def test_images_without_sources_are_reported() -> None:
    def warned(data: LabelledImages) -> bool:
        return any("treated as a separate source image" in line for line in evaluation(data).notes())

    assert not warned(arrays(60, per_source=2))
    assert warned(from_arrays("set", [np.eye(8)] * 60, list("ab") * 30))
