"""The report: every figure is there, and the page says what can be believed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stedfm_hf.evaluation.report import Contestant, Evaluation, write_report
from stedfm_hf.evaluation.scoring import Run, compare, measure, summarise
from stedfm_hf.evaluation.splits import leave_one_out
from stedfm_hf.labels.labelled import LabelledImages, from_arrays
from stedfm_hf.labels.splits import Splits
from tests.labels.labelled_data import arrays


def parted(data: LabelledImages) -> Splits[LabelledImages]:
    """Three fifths of each class and its sources for train, a fifth each for validation and test."""
    place = np.array([int(source.strip("abc")) for source in data.sources.tolist()]) % 5
    return Splits(data.take(place < 3), data.take(place == 3), data.take(place == 4), "Three fifths are train.")


def evaluation(data: LabelledImages, *, right: float = 0.9, command: str = "evaluate probe") -> Evaluation:
    """Of a model that is right as often as said, and of a baseline that guesses."""
    splits = parted(data)
    test, rng = splits.test, np.random.default_rng(0)
    count, runs = len(test.classes), []
    for key, share in (("good", right), ("guess", 1 / max(count, 2))):
        for setting, seed in (("5", 0), ("5", 1), ("all", 0)):
            if test.task == "regression":
                found = test.labels + rng.normal(size=len(test)) * (1 - share)
                runs.append(Run(key, setting, seed, found, None, 5, 0.1, "validation", measure(test, found, None)))
                continue
            answer = np.where(rng.random(len(test)) < share, test.labels, rng.integers(0, count, len(test)))
            shares = np.full((len(test), count), 0.1 / (count - 1))
            shares[np.arange(len(test)), answer] = 0.9
            metrics = measure(test, answer, shares)
            runs.append(Run(key, setting, seed, answer, shares, 5, 0.1, "validation", metrics))
    return Evaluation(
        command=command,
        splits=splits,
        training=["It is unknown which images good was trained on."],
        contestants=[
            Contestant("good", "A <good> model", "model", "abc"),
            Contestant("guess", "Guess", "baseline", None),
        ],
        runs=runs,
        summary=summarise(test, runs),
        comparisons=compare(test, runs, ["good"]),
        settings={"protocol": "default"},
        failed={"a/bad.tif": "is empty"},
        seconds={"embedding": 1.0},
    )


def written(each: Evaluation, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    write_report(each, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def simulated(splits: Splits[LabelledImages]) -> Splits[LabelledImages]:
    named: dict[str, Any] = {
        name: dataclasses.replace(images, simulated=True) for name, images in splits.named().items()
    }
    return dataclasses.replace(splits, **named)


def test_the_page_holds_everything_and_says_how_it_was_made(tmp_path: Path) -> None:
    page = written(evaluation(arrays(120, per_source=2)), tmp_path)
    assert "A &lt;good&gt; model" in page and "<good>" not in page
    assert "Three fifths are train. No source image is in two splits; this was checked." in page
    assert "It is unknown which images good was trained on." in page
    assert page.count("data:image/png") == 3 and not re.search(r"(src|href)=\"(?!data:)", page)
    assert "better than Guess" in page and "No conclusion" not in page and "imulated" not in page
    assert "a/bad.tif" in page and "Holm" in page
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.{kind}" for name in ("curve", "confusion", "calibration") for kind in ("png", "svg")}
    assert files == figures | {
        "report.html",
        "results.json",
        "results.parquet",
        "predictions.parquet",
    }


def test_few_sources_allow_no_conclusion(tmp_path: Path) -> None:
    page = written(evaluation(arrays(12)), tmp_path)
    assert "No conclusion can be drawn: the test has only 6 source images" in page
    assert "fewer than 5 source images: a (2), b (2), c (2)" in page and "better than" not in page
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert record["conclusion"]["possible"] is False


def test_simulated_images_are_called_simulated(tmp_path: Path) -> None:
    each = evaluation(arrays(120))
    page = written(dataclasses.replace(each, splits=simulated(each.splits)), tmp_path)
    assert "(simulated images)" in page and "need not hold for real ones" in page
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["data"]["simulated"] is True


@pytest.mark.figures
def test_votes_and_numbers_have_pages_of_their_own(tmp_path: Path) -> None:
    page = written(evaluation(arrays(60), command="evaluate knn"), tmp_path / "knn")
    assert "Nothing is trained on the labels" in page and not (tmp_path / "knn" / "figures" / "curve.png").exists()
    values = np.random.default_rng(0).normal(size=120)
    numbers = from_arrays("sizes", [np.eye(8)] * 120, list(values))
    page = written(evaluation(numbers), tmp_path / "numbers")
    assert "an R² of" in page and "ridge regression" in page
    assert (tmp_path / "numbers" / "figures" / "predicted.png").is_file()


def test_tables_have_one_row_for_each_run_and_each_answer(tmp_path: Path) -> None:
    each = evaluation(arrays(60))
    written(each, tmp_path)
    results = pq.read_table(tmp_path / "results.parquet")
    assert results.num_rows == 6 and {"accuracy", "macro_f1", "confusion_matrix"} <= set(results.column_names)
    answers = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert len(answers) == 6 * len(each.test)
    assert {row["label"] for row in answers} == {"a", "b", "c"}
    assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-5) for row in answers)


def test_means_and_spreads_are_over_the_draws() -> None:
    each = evaluation(arrays(60))
    row = each.row("good", "5")
    values = [run.metrics["accuracy"] for run in each.runs if (run.method, run.setting) == ("good", "5")]
    assert row["accuracy"] == {"mean": pytest.approx(np.mean(values)), "sd": pytest.approx(np.std(values, ddof=1))}
    assert row["interval"][0] <= row["accuracy"]["mean"] <= row["interval"][1] and row["runs"] == 2
    assert each.row("good", "all")["accuracy"]["sd"] is None


def test_only_what_differs_is_called_different() -> None:
    same = evaluation(arrays(120), right=1 / 3)
    assert all(row["p_holm"] > 0.05 for row in same.comparisons)
    other = evaluation(arrays(120))
    assert all(row["p_holm"] < 0.01 and row["low"] > 0 for row in other.comparisons)


def votes(per_class: int, k: list[int], *, alone: bool = True, protocol: str = "default") -> Evaluation:
    """Of neighbours, of a data set with so many images of each class."""
    each = evaluation(arrays(max(per_class, 10)), command="evaluate knn")
    if alone:
        each = dataclasses.replace(each, splits=leave_one_out({"all": arrays(per_class)}))
    names = [f"{number} neighbours" for number in k] + [f"{max(k)} neighbours, weighted (T = 0.07)"]
    runs = [dataclasses.replace(each.runs[0], setting=name) for name in names]
    return dataclasses.replace(each, runs=runs, settings={"protocol": protocol, "k": k})


def test_neighbours_that_must_outvote_a_class_are_named_and_not_told_first(tmp_path: Path) -> None:
    each = votes(10, [1, 4, 5, 20])
    # An image has nine others of its class: of five neighbours, three would have to be of it.
    assert each.outvoted() == [5, 20] and each.main_setting == "4 neighbours"
    (note,) = [line for line in each.notes() if "outvote" in line]
    assert "a, has 10 images, and none asks itself: where 5 or 20 neighbours vote" in note
    assert each.record()["notes"] == each.notes()
    every = votes(3, [2, 5])
    assert every.outvoted() == [2, 5] and every.main_setting == "2 neighbours", "where all outvote, the fewest"


def test_one_neighbour_outvotes_nobody_and_nor_do_few_of_many() -> None:
    assert votes(2, [1]).outvoted() == []
    many = votes(60, [1, 5, 20])
    assert many.outvoted() == [] and many.main_setting == "20 neighbours, weighted (T = 0.07)"
    assert not any("outvote" in line for line in many.notes())
    assert votes(10, [20], protocol="reference").outvoted() == [], "its numbers of neighbours are given"
    probe = evaluation(arrays(6))
    assert probe.outvoted() == [] and probe.main_setting == "all"


def test_a_test_image_has_the_whole_class_in_train_to_ask() -> None:
    each = votes(50, [14, 16], alone=False)
    assert set(each.splits.train.counts().values()) == {30} and each.outvoted() == [16]
    assert "none asks itself" not in " ".join(each.notes())


def test_images_without_sources_are_said_to_be_their_own() -> None:
    def warned(data: LabelledImages) -> bool:
        return any("counts as a source of its own" in line for line in evaluation(data).notes())

    assert not warned(arrays(60, per_source=2))
    assert warned(from_arrays("set", [np.eye(8)] * 60, list("ab") * 30))
