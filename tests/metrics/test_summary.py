"""Means without undefined values, and confidence intervals over source images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stedfm_hf.evaluation.segmentation import ImageScores, ObjectScores, pool_objects, score_image, summarise
from stedfm_hf.metrics import bootstrap_interval
from stedfm_hf.metrics.summary import ALL
from stedfm_hf.runs import UserError

NAN = float("nan")


def scores(*images: list[float]) -> list[ImageScores]:
    return [ImageScores({"iou": np.array(each)}, "default", 0.5) for each in images]


def by_class(rows: list[dict[str, Any]], metric: str = "iou") -> dict[str, dict[str, Any]]:
    return {row["class"]: row for row in rows if row["metric"] == metric}


def test_undefined_values_are_counted_and_excluded_from_means() -> None:
    rows = by_class(summarise(scores([0.2, NAN], [0.4, NAN], [NAN, 0.9]), ["ring", "fibre"]))
    ring, fibre, every = rows["ring"], rows["fibre"], rows[ALL]
    assert (ring["mean"], ring["median"]) == pytest.approx((0.3, 0.3))
    assert (ring["images"], ring["undefined"]) == (2, 1)
    assert ring["sd"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert (fibre["mean"], fibre["sd"], fibre["low"], fibre["undefined"]) == (0.9, None, None, 2)
    assert (every["mean"], every["images"], every["undefined"]) == (pytest.approx(0.6), 3, 3)


def test_a_class_without_values_is_excluded_from_the_mean_over_classes() -> None:
    rows = by_class(summarise(scores([0.2, NAN], [0.4, NAN]), ["ring", "fibre"]))
    assert rows["fibre"] | {"metric": 0} == {
        "metric": 0,
        "class": "fibre",
        **dict.fromkeys(("mean", "median", "sd", "low", "high"), None),
        "images": 0,
        "undefined": 2,
        "sources": 0,
    }
    assert rows[ALL]["mean"] == pytest.approx(0.3)
    nothing = by_class(summarise(scores([NAN], [NAN]), ["ring"]))
    assert (nothing[ALL]["mean"], nothing[ALL]["low"]) == (None, None)


def test_the_background_can_be_excluded() -> None:
    rows = by_class(summarise(scores([0.98, 0.2], [0.96, 0.4]), ["background", "ring"], exclude=["background"]))
    assert rows["background"]["mean"] == pytest.approx(0.97)
    assert rows[ALL]["mean"] == pytest.approx(0.3)


def test_intervals_are_over_sources() -> None:
    rng = np.random.default_rng(0)
    values, sources = rng.random(40), np.repeat([f"source {n}" for n in range(8)], 5)
    values += np.repeat(rng.random(8), 5)  # images of a source are similar
    images = scores(*([value] for value in values))
    row = by_class(summarise(images, ["ring"], sources))["ring"]
    assert (row["low"], row["high"]) == bootstrap_interval(values, sources)
    assert row["sources"] == 8
    every = by_class(summarise(images, ["ring"], sources))[ALL]
    assert (every["low"], every["high"]) == pytest.approx((row["low"], row["high"]))  # equal with one class
    apart = by_class(summarise(images, ["ring"]))["ring"]
    assert apart["high"] - apart["low"] < row["high"] - row["low"]
    one = by_class(summarise(images, ["ring"], ["one"] * 40))
    assert (one["ring"]["low"], one[ALL]["low"], one["ring"]["sources"]) == (None, None, 1)
    assert by_class(summarise(images, ["ring"], sources, n_resamples=0))["ring"]["low"] is None


def test_resamples_without_a_class_are_ignored() -> None:
    """The rare class occurs in two of six sources: resamples without them would average one class only."""
    images = scores(*([0.9, NAN] for _ in range(4)), [0.9, 0.1], [0.9, 0.1])
    every = by_class(summarise(images, ["frequent", "rare"]))[ALL]
    assert (every["mean"], every["low"], every["high"]) == pytest.approx((0.5, 0.5, 0.5))


def test_the_reference_protocol_removes_minus_one_before_averaging() -> None:
    full, empty = np.ones((1, 30, 30)), np.zeros((1, 30, 30))
    half = empty.copy()
    half[:, :15] = 1
    images = [score_image(half, half, protocol="reference"), score_image(full, half, protocol="reference")]
    images.append(score_image(empty, empty, protocol="reference"))
    rows = summarise(images, ["ring"])
    iou, weak = by_class(rows)["ring"], by_class(rows, "weak_aupr")["ring"]
    assert (iou["mean"], iou["median"], iou["images"], iou["undefined"]) == (0.75, 0.75, 2, 1)
    assert iou["sd"] == 0.25  # with n, as in the reference
    assert (weak["mean"], weak["undefined"]) == (0.5, 1)


def test_objects_are_averaged_over_images_and_pooled() -> None:
    one = ObjectScores(*(np.array([n]) for n in (9, 1, 1, 8.1)))
    other = ObjectScores(*(np.array([n]) for n in (0, 0, 1, 0.0)))
    mean = by_class(summarise([one, other], ["spot"], n_resamples=0), "pq")["spot"]
    assert mean["mean"] == pytest.approx(8.1 / 10 / 2)
    assert by_class(summarise([one, other], ["spot"], n_resamples=0), "sq")["spot"]["undefined"] == 1
    pooled = by_class(pool_objects([one, other], ["spot"], n_resamples=100), "pq")["spot"]
    assert pooled["value"] == pytest.approx(8.1 / (9 + 3 / 2))
    assert (pooled["true_positives"], pooled["false_positives"], pooled["false_negatives"]) == (9, 1, 2)
    assert pooled["low"] == 0.0 and pooled["high"] == pytest.approx(0.81)
    none = ObjectScores(*(np.array([0]) for _ in range(4)))
    assert by_class(pool_objects([none], ["spot"]), "pq")["spot"]["value"] is None


def test_invalid_arguments_raise_errors() -> None:
    with pytest.raises(UserError, match="there are no scores"):
        summarise([], ["ring"])
    with pytest.raises(UserError, match="there are no scores"):
        pool_objects([], ["ring"])
    with pytest.raises(UserError, match="do not match the 2 classes"):
        summarise(scores([0.5]), ["ring", "fibre"])
    with pytest.raises(UserError, match="1 images but 2 sources"):
        summarise(scores([0.5]), ["ring"], ["a", "b"])
    with pytest.raises(UserError, match="cannot exclude 'sky'"):
        summarise(scores([0.5]), ["ring"], exclude=["sky"])
    with pytest.raises(UserError, match="different protocols"):
        summarise([*scores([0.5]), ImageScores({"iou": np.array([0.5])}, "reference", 0.25)], ["ring"])
