"""Object metrics: matches worked out by hand, unique matches, and panoptic quality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.evaluation.segmentation import match_objects, score_objects
from stedfm_hf.metrics.objects import components
from stedfm_hf.runs import UserError

SEEDS = st.integers(0, 10_000)


def blobs(seed: int, rate: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 12, 13)) < rate


def test_matches_by_hand() -> None:
    """One exact match, one with IoU 2/3, one pair with IoU 1/2 (not a match), one missed and one spurious object."""
    truth = np.array([[1, 1, 0, 2, 2, 2, 0, 3, 3, 0, 4, 0, 0]])
    guess = np.array([[1, 1, 0, 2, 2, 0, 0, 0, 3, 0, 0, 0, 9]])
    found = match_objects(guess, truth)
    assert (found.true_positives[0], found.false_negatives[0], found.false_positives[0]) == (2, 2, 2)
    values = {name: value[0] for name, value in found.values.items()}
    assert values["f1"] == pytest.approx(2 / (2 + 4 / 2))
    assert values["sq"] == pytest.approx((1 + 2 / 3) / 2)
    assert values["pq"] == pytest.approx(values["f1"] * values["sq"])


@given(seed=SEEDS)
def test_a_mask_matches_itself(seed: int) -> None:
    mask = blobs(seed)
    found = score_objects(mask, mask)
    assert found.true_positives.tolist() == [components(each).max() for each in mask]
    assert not found.false_negatives.any() and not found.false_positives.any()
    assert all((value == 1).all() for value in found.values.values())


@given(seed=SEEDS, overlap=st.sampled_from([0.5, 0.6, 0.8]))
def test_every_object_is_counted_once(seed: int, overlap: float) -> None:
    guess, truth = blobs(seed), blobs(seed + 1)
    truth |= guess & blobs(seed + 2, 0.9)  # so that some objects match
    found = score_objects(guess, truth, overlap=overlap)
    assert (found.true_positives + found.false_positives).tolist() == [components(each).max() for each in guess]
    assert (found.true_positives + found.false_negatives).tolist() == [components(each).max() for each in truth]
    assert (found.iou_sum <= found.true_positives).all() and (found.iou_sum >= overlap * found.true_positives).all()


@given(seed=SEEDS)
def test_swapping_masks_swaps_false_positives_and_negatives(seed: int) -> None:
    guess, truth = blobs(seed), blobs(seed) & blobs(seed + 1, 0.95)
    one, other = score_objects(guess, truth), score_objects(truth, guess)
    assert one.false_negatives.tolist() == other.false_positives.tolist()
    for name in ("f1", "pq", "sq"):
        np.testing.assert_allclose(one.values[name], other.values[name])


@given(seed=SEEDS, rows=st.integers(1, 12), columns=st.integers(1, 13))
def test_scoring_a_region_equals_scoring_the_crop(seed: int, rows: int, columns: int) -> None:
    guess, truth = blobs(seed), blobs(seed) & blobs(seed + 1, 0.9)
    region = np.zeros(guess.shape[1:], bool)
    region[:rows, :columns] = True
    cropped = score_objects(*(each[:, :rows, :columns] for each in (guess, truth)))
    assert score_objects(guess, truth, region).plain() == cropped.plain()


@given(seed=SEEDS)
def test_object_numbers_are_arbitrary(seed: int) -> None:
    guess, truth = components(blobs(seed)[0]), components(blobs(seed)[1])
    names = np.random.default_rng(seed).permutation(1000)
    renamed = np.where(guess > 0, names[guess] + 1, 0)
    assert match_objects(renamed, truth).plain() == match_objects(guess, truth).plain()


def test_scores_without_objects_or_matches() -> None:
    none, one = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    one[0, 1, 1] = True
    assert score_objects(none, none).plain() == {
        **dict.fromkeys(("f1", "pq", "sq"), [None]),
        **dict.fromkeys(("true_positives", "false_positives", "false_negatives"), [0.0]),
    }
    for guess, truth in ((none, one), (one, none)):
        found = score_objects(guess, truth).plain()
        assert (found["f1"], found["pq"], found["sq"]) == ([0.0], [0.0], [None])


def test_small_components_are_ignored_and_diagonals_connect() -> None:
    mask = np.zeros((1, 6, 6), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[0, 5, 5] = True
    assert components(mask[0]).max() == 2
    assert score_objects(mask, mask, min_area_px=2).true_positives.tolist() == [1]
    assert score_objects(mask, mask, min_area_px=3).undefined("pq").all()


def test_invalid_arguments_raise_errors() -> None:
    mask = np.ones((1, 2, 2), bool)
    with pytest.raises(UserError, match="matches are not unique"):
        score_objects(mask, mask, overlap=0.3)
    with pytest.raises(UserError, match="boolean pixels"):
        score_objects(mask.astype(float), mask)
    with pytest.raises(UserError, match="must have the same shape"):
        match_objects(np.zeros((2, 2), int), np.zeros((2, 3), int))
