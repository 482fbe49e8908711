"""`SegmentationMetrics`: scores image by image, no files, and error messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import torch

from stedfm_hf.evaluation.segmentation import score_image, score_objects, summarise
from stedfm_hf.metrics.segmentation import SegmentationMetrics
from stedfm_hf.runs import UserError

N_RESAMPLES = 50


def images(count: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps and targets of different sizes; the second class is absent from the first image."""
    rng = np.random.default_rng(0)
    shapes = [(2, 8 + number, 9) for number in range(count)]
    maps, targets = (
        [rng.random(shape) for shape in shapes],
        [(rng.random(shape) < 0.3).astype(int) for shape in shapes],
    )
    targets[0][1] = maps[0][1] = 0
    return maps, targets


def test_the_metric_equals_the_summary_of_its_images() -> None:
    maps, targets = images()
    sources = ["a", "a", "b", "b", "c", "c"]
    found = SegmentationMetrics(objects=True, n_resamples=N_RESAMPLES).compute(
        predictions=maps, references=targets, sources=sources
    )
    pixels = summarise(
        [score_image(*pair) for pair in zip(maps, targets, strict=True)], ["0", "1"], sources, n_resamples=N_RESAMPLES
    )
    objects = [score_objects(one >= 0.5, other) for one, other in zip(maps, targets, strict=True)]
    for row in [*pixels, *summarise(objects, ["0", "1"], sources, n_resamples=N_RESAMPLES)]:
        if row["class"] in ("0", "1"):
            assert found[f"{row['metric']}_per_class"][int(row["class"])] == row["mean"]
            assert found[f"undefined_{row['metric']}"][int(row["class"])] == row["undefined"]
        else:
            assert found[row["metric"]] == row["mean"]
            assert found[f"{row['metric']}_interval"] == [row["low"], row["high"]]
    assert found["images"] == 6 and found["undefined_iou"] == [0, 1]
    assert json.loads(json.dumps(found)) == found


def test_no_files_are_written_and_images_can_be_added_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    maps, targets = images()
    expected = SegmentationMetrics(n_resamples=N_RESAMPLES).compute(predictions=maps, references=targets)
    one, other = SegmentationMetrics(n_resamples=N_RESAMPLES), SegmentationMetrics(n_resamples=N_RESAMPLES)
    for each, target in zip(maps, targets, strict=True):
        one.add(prediction=each, reference=target)
        other.add_batch(predictions=torch.from_numpy(each)[None], references=[target.tolist()])
    assert len(one) == 6 and "stored examples: 6" in repr(one)
    assert one.compute() == other.compute() == expected
    assert len(one) == 0
    assert one.compute(predictions=maps, references=targets) == expected  # and can be used again
    both = evaluate.combine([SegmentationMetrics(n_resamples=0), SegmentationMetrics(threshold=0.3, n_resamples=0)])
    both.add(prediction=maps[1], reference=targets[1])
    found = both.compute()
    names = [name for name in found if name.endswith("_iou") and "undefined" not in name]
    assert len(names) == len({found[name] for name in names}) == 2
    assert list(tmp_path.iterdir()) == []


def test_single_labels_ignore_pixels_and_exclude_the_background() -> None:
    maps = np.array([[[0.6, 0.3, 0.3]], [[0.4, 0.4, 0.4]], [[0.0, 0.3, 0.3]]])
    metric = SegmentationMetrics(
        target_type="single_label", classes=["background", "ring", "fibre"], background=0, n_resamples=0
    )
    found = metric.compute(predictions=[maps] * 2, references=[np.array([[0, 1, 255]]), np.array([[0, 1, 2]])])
    assert found["iou_per_class"] == [1.0, 0.75, 0.0]
    assert found["iou"] == pytest.approx(0.375)
    assert found["undefined_iou"] == [0, 0, 1]


def test_only_pixels_inside_the_region_are_scored() -> None:
    maps, target = np.array([[[0.9, 0.9, 0.1]]]), np.array([[[1, 0, 0]]])
    region = np.array([[1, 0, 1]])
    found = SegmentationMetrics(n_resamples=0).compute(
        predictions=[maps] * 2, references=[target] * 2, regions=[region, None]
    )
    assert found["iou"] == 0.75


def test_the_reference_protocol() -> None:
    maps, target = np.array([[[0.9, 0.3, 0.1]]]), np.array([[[1, 0, 0]]])
    none = np.zeros((1, 1, 3))
    found = SegmentationMetrics(protocol="reference", n_resamples=0).compute(
        predictions=[maps, none], references=[target, none]
    )
    assert (found["iou"], found["undefined_iou"]) == (0.5, [1])
    assert {"aupr", "auroc", "auap", "weak_aupr"} <= set(found) and "dice" not in found


@pytest.mark.parametrize(
    ("options", "given_ones", "message"),
    [
        ({"target_type": "regression"}, {}, "is unknown; choose single_label"),
        ({"protocol": "reference", "objects": True}, {}, "nor object metrics"),
        ({"protocol": "reference", "target_type": "single_label"}, {}, "neither single labels"),
        ({}, {}, "no images to score"),
        ({}, {"predictions": [[[[0.1]]]], "references": []}, "for each image; their numbers are"),
        (
            {},
            {"predictions": [[[[0.1]]]], "references": [[[[1]]]], "sources": ["a", "b"]},
            "for each image; their numbers are",
        ),
        ({}, {"predictions": [[[[0.1]]]], "references": [[[[2]]]]}, "range from 2 to 2"),
        (
            {},
            {"predictions": [[[[0.1]]], [[[0.1]], [[0.2]]]], "references": [[[[1]]], [[[1]], [[1]]]]},
            "must have 1 classes",
        ),
        ({"target_type": "single_label"}, {"predictions": [[[[0.1]]]], "references": [[[3]]]}, "class number 3"),
        ({"classes": ["a", "b"]}, {"predictions": [[[[0.1]]]], "references": [[[[1]]]]}, "do not match the 2 classes"),
    ],
)
def test_invalid_arguments_raise_errors(options: dict[str, Any], given_ones: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SegmentationMetrics(**options).compute(**given_ones)


def test_a_misspelt_argument_raises_an_error() -> None:
    with pytest.raises(TypeError, match="unexpected arguments: region"):
        SegmentationMetrics().compute(predictions=[[[[0.1]]]], references=[[[[1]]]], region=[None])
    with pytest.raises(TypeError, match="unexpected arguments: mask"):
        SegmentationMetrics().add(prediction=[[[0.1]]], reference=[[[1]]], mask=None)
