"""Zero-shot masks as methods of `evaluate segmentation`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from stedfm_hf.cli import main
from stedfm_hf.evaluation import MaskResult, evaluate_segmentation
from stedfm_hf.evaluation.segmentation import zero_shot
from stedfm_hf.images import StedImage
from stedfm_hf.inference import load_encoder
from stedfm_hf.interpretability import zero_shot_mask
from stedfm_hf.runs import UserError
from tests.evaluation.segmentation.test_protocol import annotated, save, scores

CLUSTERS, ATTENTION = "Patch clusters (demo)", "Attention (demo)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return annotated(tmp_path_factory.mktemp("data") / "set", count=8, empty=(3,))


def evaluate(data: Path, report: Path, **options: Any) -> MaskResult:
    given = {"zero_shot": ["demo"], "baselines": ["otsu"], "classes": ["spots"], "split": "all", "device": "cpu"}
    return evaluate_segmentation(data, report, **given | options)


def masks_of(data: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mask from clusters and annotation of each image."""
    encoder, pairs = load_encoder("demo", device="cpu"), []
    for file in sorted((data / "images").iterdir()):
        image = StedImage(tifffile.imread(file)[None], None, ("",), {}, file.name, "image")
        pairs.append((zero_shot_mask(encoder, image), tifffile.imread(data / "masks" / file.name)))
    return pairs


def test_masks_are_scored_next_to_baselines_and_use_no_annotation(folder: Path, tmp_path: Path) -> None:
    result = evaluate(folder, tmp_path / "out")
    assert [(each["key"], each["kind"]) for each in result.record["methods"]] == [
        (CLUSTERS, "zero-shot"),
        (ATTENTION, "zero-shot"),
        ("otsu", "baseline"),
    ]
    pairs = [(found, true > 0) for found, true in masks_of(folder)]
    ious = [(found & true).sum() / (found | true).sum() for found, true in pairs if (found | true).any()]
    assert scores(result.record, CLUSTERS, "spots")["iou"]["mean"] == pytest.approx(np.mean(ious))
    assert {(row["model"], row["other"]) for row in result.record["comparisons"]} == {
        (CLUSTERS, ATTENTION),
        (CLUSTERS, "otsu"),
        (ATTENTION, "otsu"),
    }
    assert "demo was trained on simulated images only." in result.record["notes"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "use neither annotations nor training images" in page and "stedfm segment does" not in page
    assert "Join the classes" not in page


def test_the_command_works_with_folds_and_resumes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "segmentation", "--zero-shot", "demo", "--dataset", str(folder), "--folds", "4"]
    words += ["--classes", "spots", "--baselines", "otsu", "constant", "--device", "cpu", "--output"]
    assert main([*words, str(tmp_path / "whole"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert scores(record, CLUSTERS)["iou"]["images"] + scores(record, CLUSTERS)["iou"]["undefined"] == 8
    computed: list[int] = []
    real = zero_shot.ZeroShotMethod.maps

    def stopping(self: zero_shot.ZeroShotMethod, data: Any, number: int) -> np.ndarray:
        computed.append(number)
        if len(computed) == 5:
            raise KeyboardInterrupt
        return real(self, data, number)

    monkeypatch.setattr(zero_shot.ZeroShotMethod, "maps", stopping)
    assert main([*words, str(tmp_path / "out")]) == 130
    capsys.readouterr()
    assert main([*words, str(tmp_path / "out")]) == 0
    assert computed[5] == 4 and "0 models, 2 zero-shot methods and 2 baselines scored" in capsys.readouterr().err
    one, other = (pq.read_table(tmp_path / name / "per_image.parquet") for name in ("whole", "out"))
    assert one.equals(other)


def test_several_classes_are_scored_with_the_same_mask(tmp_path: Path) -> None:
    data = annotated(tmp_path / "set", count=4)
    for file in (data / "masks").iterdir():
        mask = np.minimum(tifffile.imread(file), 1).astype(np.uint8)
        mask[:, mask.shape[1] // 2 :] *= 2
        tifffile.imwrite(file, mask)
    both = evaluate(data, tmp_path / "both", classes=["left", "right"]).record
    joined = evaluate(data, tmp_path / "joined", classes=["1=spots", "2=spots"]).record
    expected: dict[str, list[float]] = {"background": [], "left": [], "right": [], "spots": []}
    for found, true in masks_of(data):
        planes = {"background": true == 0, "left": true == 1, "right": true == 2, "spots": true > 0}
        for name, plane in planes.items():
            mask = ~found if name == "background" else found
            expected[name].append((mask & plane).sum() / (mask | plane).sum())
    for record, names in ((both, ("background", "left", "right")), (joined, ("background", "spots"))):
        for name in names:
            assert scores(record, CLUSTERS, name)["iou"]["mean"] == pytest.approx(np.mean(expected[name]))
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "Join the classes (--classes " in page


def test_the_reference_protocol_and_a_trained_model(tmp_path: Path) -> None:
    data = annotated(tmp_path / "set", count=4, planes=True)
    model = save(tmp_path / "segmenter", target_type="multi_label", id2label={0: "spots", 1: "rings"})
    options: dict[str, Any] = {"classes": ["spots", "rings"], "model": [model]}
    reference = evaluate(data, tmp_path / "reference", protocol="reference", **options).record
    assert [each["kind"] for each in reference["methods"]] == ["model", "zero-shot", "zero-shot", "baseline"]
    default = evaluate(data, tmp_path / "default", threshold=0.25, **options).record
    found = [
        {key: scores(each, key, "spots")["iou"]["mean"] for key in (CLUSTERS, ATTENTION)}
        for each in (reference, default)
    ]
    assert found[0][CLUSTERS] == pytest.approx(found[1][CLUSTERS]) and found[0][ATTENTION] != found[1][ATTENTION]
    page = (tmp_path / "reference" / "report.html").read_text(encoding="utf-8")
    assert "60 % of the attention" in page and "stedfm segment does" in page


def test_invalid_arguments_raise_errors_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wide = save(tmp_path / "two", num_channels=2)
    for options, message in (
        ({"zero_shot": [], "baselines": ["none"]}, "set --model, --zero-shot or --baselines"),
        ({"zero_shot": [], "split": None}, "set --model or --zero-shot"),
        ({"zero_shot": ["demo", "demo"]}, "model demo: is named twice"),
        ({"zero_shot": ["nothing"]}, "model nothing: no such folder"),
        ({"zero_shot": [wide]}, "has 1 channels, but two needs 2"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            evaluate(folder, out, **options)
    assert not out.exists()
    assert evaluate(folder, out, baselines=["none"]).record["methods"][0]["key"] == CLUSTERS
