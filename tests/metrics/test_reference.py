"""Metrics of the reference protocol, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.evaluation.segmentation import score_image
from stedfm_hf.metrics.reference import REFERENCE_METRICS, weak_aupr
from stedfm_hf.runs import UserError


def test_areas_by_hand() -> None:
    """Sorted by prediction the truth is 1, 0, 1, 0: precision 1, 1/2, 2/3, 1/2 at recall 1/2, 1/2, 1, 1."""
    maps, target = np.array([[[0.9, 0.7, 0.5, 0.2]]]), np.array([[[1, 0, 1, 0]]])
    found = score_image(maps, target, protocol="reference").values
    trapezoids = 0.5 * (1 + 1) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2
    best_beyond = 0.5 * (1 + 1) / 2 + 0.5 * (2 / 3 + 2 / 3) / 2
    assert found["aupr"][0] == pytest.approx(trapezoids)
    assert found["auap"][0] == pytest.approx(best_beyond)
    assert found["auroc"][0] == 0.75
    assert found["iou"][0] == pytest.approx(2 / 3)  # three are above 0.25
    default = score_image(maps, target).values
    assert default["aupr"][0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)  # no trapezoidal rule


def test_pixels_are_predicted_above_a_quarter() -> None:
    maps, target = np.array([[[0.25, 0.26]]]), np.array([[[1, 1]]])
    assert score_image(maps, target, protocol="reference").values["iou"][0] == 0.5
    assert score_image(maps, target, protocol="reference", threshold=0.26).values["iou"][0] == -1 + 1  # 0 of 2


def test_undefined_scores_are_minus_one() -> None:
    none, every = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
    empty = score_image(none, none, protocol="reference")
    assert {name: values.tolist() for name, values in empty.values.items()} == dict.fromkeys(REFERENCE_METRICS, [-1.0])
    assert empty.plain() == dict.fromkeys(REFERENCE_METRICS, [None])
    full = score_image(every, every, protocol="reference").plain()
    assert full == dict.fromkeys(REFERENCE_METRICS, [None]) | {"iou": [1.0]}
    assert score_image(every, none, protocol="reference").plain()["iou"] == [0.0]


def test_all_metrics_use_the_region() -> None:
    maps, target = np.array([[[0.9, 0.1, 0.9]]]), np.array([[[1, 0, 0]]])
    region = np.array([[True, True, False]])
    found = score_image(maps, target, region, protocol="reference").values
    assert {name: values.tolist() for name, values in found.items()} == dict.fromkeys(REFERENCE_METRICS, [1.0])


@given(seed=st.integers(0, 10_000))
def test_auap_is_at_least_aupr(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = (rng.random((1, 6, 7)) < 0.4).astype(float)
    found = score_image(rng.random((1, 6, 7)).round(1), target, protocol="reference").values
    assert (found["auap"] >= found["aupr"] - 1e-12).all()


def test_weak_aupr_uses_a_margin_of_ten_pixels() -> None:
    truth, maps = np.zeros((60, 60)), np.zeros((60, 60))
    truth[20:23, 20:23] = 0.6
    maps[20:23, 20:23] = 1.0
    assert weak_aupr(maps, truth) == 1.0
    maps[33, 21] = 1.0  # the eleventh pixel below the box
    assert weak_aupr(maps, truth) == 1.0
    maps[32, 21] = 1.0  # the tenth
    assert weak_aupr(maps, truth) < 1.0


def test_weak_aupr_includes_undefined_boxes() -> None:
    truth = np.zeros((40, 40))
    truth[5:8, 5:8] = truth[30:33, 30:33] = 1.0
    maps = truth.copy()
    maps[:20, :20] = 0.3  # constant around the first object
    assert weak_aupr(maps, truth) == 0.5
    full = np.ones((8, 8))
    assert weak_aupr(full, full) == -1.0  # all pixels of the box are true
    region = np.zeros((40, 40), bool)
    region[5:8, 5:8] = region[25:, 25:] = True
    assert weak_aupr(truth, truth, region) == 0.0  # -1 of the first, 1 of the second
    assert weak_aupr(truth, np.full((40, 40), 0.5)) == -1.0  # 0.5 is not above the threshold


def test_objects_that_touch_diagonally_are_one() -> None:
    truth = np.zeros((50, 50))
    truth[0, 0] = truth[1, 1] = 1.0
    maps = truth.copy()
    maps[11, 11] = 2.0  # inside the box of both, and outside that of the first alone
    assert weak_aupr(maps, truth) == weak_aupr(maps[:12, :12], truth[:12, :12]) < 1.0


def test_exclusive_classes_are_not_supported() -> None:
    with pytest.raises(UserError, match="leave out exclusive"):
        score_image(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), protocol="reference", exclusive=True)
