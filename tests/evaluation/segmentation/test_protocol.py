"""Runs of `evaluate segmentation`: results, resuming and errors."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from stedfm_hf import StedFmForSemanticSegmentation
from stedfm_hf.cli import main
from stedfm_hf.data.splits import file_id, split_of
from stedfm_hf.evaluation import MaskResult, evaluate_segmentation
from stedfm_hf.evaluation.segmentation import methods
from stedfm_hf.inference import segment
from stedfm_hf.runs import UserError
from tests.models import tiny_config

CHEAP = ("otsu", "constant")


def save(folder: Path, seed: int = 0, **changes: Any) -> str:
    """Save a model whose maps follow the image."""
    torch.manual_seed(seed)
    changes = {"decoder": "linear", "id2label": {0: "background", 1: "spots"}, **changes}
    model = StedFmForSemanticSegmentation(tiny_config(**changes)).eval()
    with torch.no_grad():
        for weights in model.decode_head.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.5)
    model.save_pretrained(folder)
    return str(folder)


def annotated(folder: Path, count: int = 20, empty: tuple[int, ...] = (), planes: bool = False) -> Path:
    """Write images of a bright square on noise with masks; with planes, the second class has no pixels."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image, mask = rng.poisson(5, (40, 32)).astype(np.uint16), np.zeros((40, 32), np.uint8)
        if number not in empty:
            image[5 : 15 + number % 3, 6:18] += 200
            mask[5 : 15 + number % 3, 6:18] = 255
        for kind, array in (("images", image), ("masks", np.stack([mask, 0 * mask]) if planes else mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            file = folder / kind / f"cell{number:02d}.tif"
            tifffile.imwrite(
                file, array, photometric="minisblack", planarconfig="separate" if array.ndim > 2 else None
            )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return annotated(tmp_path_factory.mktemp("data") / "set", empty=(3,))


def evaluate(data: Path, models: list[str], report: Path, **options: Any) -> MaskResult:
    given = {"baselines": [*CHEAP], "classes": ["spots"], "device": "cpu", **options}
    return evaluate_segmentation(data, report, model=models, **given)


def scores(record: dict[str, Any], method: str, each_class: str = "mean over classes") -> dict[str, Any]:
    return {row["metric"]: row for row in record["summary"] if (row["method"], row["class"]) == (method, each_class)}


def test_results_and_report(folder: Path, model: str, tmp_path: Path) -> None:
    result = evaluate(folder, [model], tmp_path / "out", split="all", baselines=("otsu", "wavelets", "forest"))
    record = result.record
    assert [each["key"] for each in record["methods"]] == ["tiny", "otsu", "wavelets"]
    assert "skipped: forest. The other" in " ".join(record["notes"]) and record["split"]["splits"].keys() == {"test"}
    otsu = scores(record, "otsu", "spots")
    assert otsu["iou"]["mean"] > 0.9 and otsu["aupr"]["undefined"] == 1, "an empty image has no AUPR"
    assert record["data"]["excluded_from_means"] == ["background"] and result.manifest.counts()["done"] == 20
    assert {row["class"] for row in record["pooled_objects"]} == {"spots"}
    table = pq.read_table(result.output / "per_image.parquet").to_pylist()
    assert len(table) == 3 * 20 * 2
    assert {"image_id", "source", "method", "class", "iou", "dice", "aupr", "auroc", "f1", "pq"} <= table[0].keys()
    page = (result.output / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2 and not re.search(r"(src|href)=\"(?!data:)", page)
    assert "best" in page and "Otsu" in page and "imulated" not in page
    files = {path.name for path in (result.output / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in ("scores", "examples") for kind in ("png", "svg")}


def test_the_maps_equal_those_of_segment(folder: Path, model: str, tmp_path: Path) -> None:
    record = evaluate(folder, [model], tmp_path / "out", split="all", baselines=()).record
    segment(folder / "images", tmp_path / "masks", model=model, device="cpu")
    ious = []
    for file in sorted((folder / "masks").iterdir()):
        found = tifffile.imread(tmp_path / "masks" / f"{file.name}.labels1.tif") == 1
        true = tifffile.imread(file) > 0
        if (found | true).any():
            ious.append((found & true).sum() / (found | true).sum())
    assert scores(record, "tiny", "spots")["iou"]["mean"] == pytest.approx(np.mean(ious))


def test_a_data_set_without_splits_is_split_and_few_images_are_reported(
    folder: Path, model: str, tmp_path: Path
) -> None:
    record = evaluate(folder, [model], tmp_path / "out").record
    files = sorted((folder / "images").iterdir())
    counts = Counter(split_of(file_id(file)) for file in files)
    assert {name: each["images"] for name, each in record["split"]["splits"].items()} == {
        name: counts[name] for name in ("train", "test")
    }
    assert "a hash of the id of each source image decides" in record["split"]["description"]
    assert record["notes"][0] == "It is unknown which images tiny was trained on."
    assert not record["conclusion"]["possible"]
    assert f"only {counts['test']} source image" in record["conclusion"]["limitations"][0]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "No conclusion can be drawn" in page and "better than" not in page


def test_the_same_command_reads_its_results_and_other_settings_raise_an_error(
    folder: Path, model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = evaluate(folder, [model], out)
    written = (out / "metrics.json").stat().st_mtime_ns
    assert evaluate(folder, [model], out).record == first.record
    assert (out / "metrics.json").stat().st_mtime_ns == written
    with pytest.raises(UserError, match=r"made with other settings \(min_area_px: 1 before, 4 now\)"):
        evaluate(folder, [model], out, min_area_px=4)
    assert evaluate(folder, [model], out, min_area_px=4, overwrite=True).record["protocol"]["min_area_px"] == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds other files, such as notes.txt"):
        evaluate(folder, [model], tmp_path / "mine")


def test_an_interrupted_run_resumes_with_the_same_results(
    folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(folder, [model], tmp_path / "whole", split="all").record
    scored: list[int] = []
    real = methods.ModelMethod.maps

    def stopping(self: methods.ModelMethod, data: Any, number: int) -> np.ndarray:
        scored.append(number)
        if len(scored) == 8:
            raise KeyboardInterrupt
        return real(self, data, number)

    monkeypatch.setattr(methods.ModelMethod, "maps", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, [model], tmp_path / "out", split="all")
    assert not (tmp_path / "out" / "report.html").exists()
    found = evaluate(folder, [model], tmp_path / "out", split="all").record
    assert scored[8] == 7 and found["summary"] == whole["summary"]
    one, other = (pq.read_table(tmp_path / name / "per_image.parquet") for name in ("whole", "out"))
    assert one.equals(other)


def test_failed_images_are_excluded_for_all_methods_and_reported(
    folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = methods.ModelMethod.maps

    def failing(self: methods.ModelMethod, data: Any, number: int) -> np.ndarray:
        if number == 2:
            raise ValueError("the maps are not finite")
        return real(self, data, number)

    monkeypatch.setattr(methods.ModelMethod, "maps", failing)
    result = evaluate(folder, [model], tmp_path / "out", split="all")
    (image_id,) = result.record["data"]["failed"]
    assert result.manifest.exit_status == 1 and result.manifest.counts()["done"] == 19
    table = pq.read_table(tmp_path / "out" / "per_image.parquet").to_pylist()
    assert image_id not in {row["image_id"] for row in table} and len(table) == 2 * 19 * 2
    assert image_id in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_invalid_arguments_raise_errors_before_anything_is_written(folder: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for models, options, message in (
        ([], {}, "there is no model to evaluate; set --model"),
        ([model], {"folds": 3}, "cross-validates baselines only"),
        ([model], {"classes": ["rings"]}, "has the classes background, spots, but set has background, rings"),
        ([model], {"threshold": 0.3}, "Leave out --threshold"),
        ([model], {"protocol": "reference"}, "--target-type multi_label"),
        ([model], {"split": "tests"}, "has no split 'tests'"),
        ([model, model], {}, "is named twice"),
        ([model], {"baselines": ["magic"]}, "baselines 'magic' is unknown"),
        ([save(tmp_path / "two", num_channels=2)], {}, "has 1 channels, but two needs 2"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            evaluate(folder, models, out, **options)
    assert not out.exists()


@pytest.mark.figures
def test_the_reference_protocol(tmp_path: Path) -> None:
    data = annotated(tmp_path / "set", count=8, planes=True)
    model = save(tmp_path / "multilabel", target_type="multi_label", id2label={0: "spots", 1: "rings"})
    options: dict[str, Any] = {"split": "all", "classes": ["spots", "rings"], "baselines": ("otsu",)}
    result = evaluate(data, [model], tmp_path / "out", protocol="reference", **options)
    assert result.record["protocol"] == {"name": "reference", "threshold": 0.25, "min_area_px": 1}
    assert scores(result.record, "multilabel").keys() == {"iou", "aupr", "auroc", "auap", "weak_aupr"}
    assert not result.record["pooled_objects"] and "cannot be" not in result.record["warnings"]
    rings = scores(result.record, "otsu", "rings")
    assert rings["weak_aupr"]["undefined"] == 8 and rings["weak_aupr"]["mean"] is None
    table = pq.read_table(tmp_path / "out" / "per_image.parquet").to_pylist()
    assert {row["weak_aupr"] for row in table if row["class"] == "rings"} == {-1.0}
    assert any("no pixel of rings is in test" in each for each in result.record["warnings"])
    default = evaluate(data, [model], tmp_path / "default", threshold=0.25, **options).record
    assert scores(default, "multilabel", "spots")["iou"]["mean"] == pytest.approx(
        scores(result.record, "multilabel", "spots")["iou"]["mean"]
    )
    assert (tmp_path / "default" / "figures" / "classes.png").is_file()


def test_the_command_cross_validates_baselines_and_prints_json(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "segmentation", "--dataset", str(folder), "--folds", "4", "--output", str(tmp_path / "out")]
    words += ["--baselines", "otsu", "wavelets"]
    assert main([*words, "--classes", "spots", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert "4-fold cross-validation" in record["split"]["description"] and record["settings"]["folds"] == 4
    assert scores(record, "wavelets")["iou"]["mean"] > 0.5 and record["split"]["splits"]["test"]["images"] == 20
    assert main([*words, "--classes", "spots"]) == 0
    shown = capsys.readouterr()
    assert (
        "Wavelet spots" in shown.out
        and "report.html" in shown.out
        and "is finished; replace it with --overwrite" in shown.err
    )
    assert main([*words[:-2], "none"]) == 2 and "there is nothing to score" in capsys.readouterr().err
    assert main([*words, "--classes", "0=background", "--classes", "255=spots"]) == 0, "the same classes by number"
    assert main([*words, "--classes", "blobs"]) == 2 and "other settings" in capsys.readouterr().err


def test_the_terminal_shows_each_class_next_to_the_mean(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    for file in (data / "masks").rglob("*.tif"):
        mask = np.minimum(tifffile.imread(file), 1).astype(np.uint8)
        mask[:, mask.shape[1] // 2 :] *= 2
        tifffile.imwrite(file, mask)
    words = ["evaluate", "segmentation", "--dataset", str(data), "--folds", "4", "--output", str(tmp_path / "out")]
    assert main([*words, "--baselines", *CHEAP, "--classes", "left", "right"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.split() == ["iou", "left", "right"])
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    found = [f"{scores(rows, 'otsu', name)['iou']['mean']:.3f}" for name in ("left", "right")]
    assert lines[head + 1].split()[-2:] == found
