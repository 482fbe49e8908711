"""`stedfm evaluate find` on files: tables, report, folds, resuming and refused input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from stedfm_hf import StedFmModel
from stedfm_hf.acquisition import evaluate_find, fit_finder
from stedfm_hf.acquisition.evaluation.fitted import FINDERS_FOLDER
from stedfm_hf.acquisition.evaluation.scoring import PARTS, SCHEMA
from stedfm_hf.acquisition.evaluation.work import Work
from stedfm_hf.acquisition.settings import EvaluateFindSettings
from stedfm_hf.runs import UserError
from tests.models import tiny_config

SHAPE = (48, 64)
COUNT = 4


def write_images(folder: Path, *, count: int = COUNT) -> Path:
    """Noisy images with a bright square and a bright line each, and their masks; the last image has only a square."""
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels, mask = rng.poisson(3, SHAPE).astype(np.uint16), np.zeros(SHAPE, np.uint8)
        y, x = rng.integers(2, 30, 2)
        mask[y : y + 8, x : x + 8] = 1
        if number < count - 1:
            mask[40:43] = 2
        pixels[mask == 1] += 200
        pixels[mask == 2] += 60
        for name, array in (("images", pixels), ("masks", mask)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / name / f"{number}.tif", array)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate-find")
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(root / "model")
    write_images(root / "annotated")
    return root


def options(world: Path, **others: Any) -> dict[str, Any]:
    given = {"model": [str(world / "model")], "classes": ["squares", "lines"], "device": "cpu"}
    return given | {"dataset": world / "annotated", "region_size_px": 16} | others


@pytest.fixture(scope="module")
def result(world: Path) -> tuple[Path, dict[str, Any]]:
    output = world / "report"
    found = evaluate_find(output=output, method=["templates", "logistic"], **options(world))
    assert found.exit_status == 0
    return output, found.record


def test_every_method_is_scored_in_every_image(result: tuple[Path, dict[str, Any]]) -> None:
    output, record = result
    methods = [each["key"] for each in record["methods"]]
    assert methods[:2] == ["templates", "logistic"] and "logistic (untrained)" in methods and "coarsened" in methods
    frame = pd.read_parquet(output / "per_image.parquet")
    assert list(frame.columns) == SCHEMA.names
    assert len(frame) == len(methods) * COUNT * 2 * 3
    assert frame.groupby("image_id")["fold"].nunique().max() == 1 and frame["fold"].nunique() == COUNT
    undefined = frame[frame["average_precision"].isna()]
    assert set(undefined["image_id"]) == {"3.tif"} and set(undefined["class"]) == {"lines"}
    upper = frame[(frame["method"] == "coarsened") & (frame["level"] == "patches")]["average_precision"].dropna()
    assert (upper > 0.9).all()
    assert not (output / PARTS).exists() and not (output / FINDERS_FOLDER).exists()


def test_means_are_those_of_the_images(result: tuple[Path, dict[str, Any]]) -> None:
    output, record = result
    frame = pd.read_parquet(output / "per_image.parquet")
    summary = pd.read_csv(output / "summary.csv")
    for row in record["summary"]:
        if row["class"] in ("squares", "lines"):
            some = frame[(frame["method"] == row["method"]) & (frame["class"] == row["class"])]
            values = some[some["level"] == row["metric"]]["average_precision"]
            assert row["mean"] == pytest.approx(values.mean()) and row["undefined"] == values.isna().sum()
    assert len(summary) == len(record["summary"])
    curves = pd.read_parquet(output / "curves.parquet")
    assert curves["precision"].between(0, 1).all() and set(curves["level"]) == {"patches", "pixels", "regions"}
    facts = {each["class"]: each for each in record["data"]["facts"]}
    assert facts["squares"]["images"] == 4 and facts["lines"]["images"] == 3 and facts["lines"]["objects"] == 3


def test_the_page_reports_the_means(result: tuple[Path, dict[str, Any]]) -> None:
    output, record = result
    page = (output / "report.html").read_text("utf-8")
    assert "No conclusion can be drawn" in page and "Annotation in patches" in page
    best = max(
        row["mean"]
        for row in record["summary"]
        if row["class"] == "mean over classes"
        and row["metric"] == "patches"
        and row["method"] in ("templates", "logistic")
    )
    assert f"{best:.3f}" in page
    per_image = pd.read_parquet(output / "per_image.parquet").query("level == 'patches'")
    means = {
        method: rows.groupby("image_id")["average_precision"].mean()
        for method, rows in per_image.groupby("method")
        if method in ("templates", "logistic")
    }
    (examples,) = re.findall(r"best: .*? Blue outlines", page)
    shown = re.findall(r"(\S+): (\S+) \(mean AP (\S+), (\S+) (\S+)\)", examples)
    assert [title for title, *_ in shown] == ["best", "median", "worst"]
    assert any(
        [float(mean) for _, _, mean, *_ in shown] == [round(each[image], 2) for _, image, *_ in shown]
        and shown[-1][2] == f"{each.min():.2f}"
        for each in means.values()
    )
    assert all(name in ("squares", "lines") and float(ap) <= float(mean) for *_, mean, name, ap in shown)
    assert {path.name for path in (output / "figures").iterdir()} >= {"scores.png", "curves.png", "examples.svg"}


def test_an_interrupted_run_resumes_with_the_same_result(
    world: Path, tmp_path: Path, result: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = options(world, output=tmp_path / "report", method=["templates", "logistic"])
    score = Work.maps
    calls: list[int] = []

    def interrupted(self: Any, group: Any, field: Any, number: int) -> Any:
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, group, field, number)

    monkeypatch.setattr(Work, "maps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_find(**how)
    assert (tmp_path / "report" / FINDERS_FOLDER).is_dir() and (tmp_path / "report" / PARTS).is_dir()

    def fitted_again(*_: Any, **__: Any) -> Any:
        raise AssertionError("finders are fitted again")

    monkeypatch.setattr(Work, "maps", score)
    monkeypatch.setattr("stedfm_hf.acquisition.evaluation.fitted.collect_examples", fitted_again)
    evaluate_find(**how)
    first, second = (pd.read_parquet(each / "per_image.parquet") for each in (result[0], tmp_path / "report"))
    pd.testing.assert_frame_equal(first, second)


def test_the_reference_protocol_scores_pixels(world: Path, tmp_path: Path) -> None:
    found = evaluate_find(output=tmp_path / "report", protocol="reference", **options(world))
    assert found.record["levels"] == ["pixels"]
    assert [each["key"] for each in found.record["methods"]] == [
        "templates",
        "intensity",
        "random-patches",
        "coarsened",
    ]
    curves = pd.read_parquet(tmp_path / "report" / "curves.parquet")
    assert (curves.groupby(["method", "class"]).size() == 100).all()
    assert (tmp_path / "report" / "figures" / "difference.png").is_file()


def test_a_finder_is_not_evaluated_on_images_it_was_fitted_to(world: Path, tmp_path: Path) -> None:
    some = write_images(tmp_path / "some", count=2)
    fit_finder(
        some, tmp_path / "my-finder", model=world / "model", classes=["squares", "lines"], device="cpu"
    )  # image 0 is that of the data set; image 1 has other annotations but the same pixels of the square
    how = options(world, output=tmp_path / "report", finder=[str(tmp_path / "my-finder")], model=None)
    found = evaluate_find(**how, baselines=["intensity"])
    skipped = json.loads((tmp_path / "report" / "manifest.json").read_text())["items"]
    assert skipped["0.tif"]["state"] == "skipped" and found.record["data"]["images"] == 3
    assert [each["name"] for each in found.record["methods"]] == ["my-finder (templates)", "Intensity"]
    with pytest.raises(UserError, match="has the classes squares, lines, but the data has a, b"):
        evaluate_find(**how | {"classes": ["a", "b"], "output": tmp_path / "other"})


def test_a_class_of_one_image_is_refused(world: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "two", count=2)
    with pytest.raises(UserError, match="the class lines is in 1 source image"):
        evaluate_find(**options(world, dataset=tmp_path / "two", output=tmp_path / "report"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"baselines": ["none", "chance"]}, "none cannot be combined"),
        ({"finder": ["a"], "model": ["demo"]}, "name their --method"),
        ({"protocol": "reference", "finder": ["a"]}, "remove --finder"),
        ({"protocol": "reference", "method": ["logistic"]}, "has no method logistic"),
        ({"protocol": "reference", "baselines": ["otsu"]}, "has no baseline otsu"),
        ({"protocol": "reference", "normalization": "minmax"}, "remove --normalization"),
    ],
)
def test_options_that_exclude_each_other_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluateFindSettings("data", "out", **wrong)
