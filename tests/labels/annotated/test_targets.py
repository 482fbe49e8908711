"""The rules from masks to targets; counted pixels agree with the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.labels.annotated import AnnotatedImages, from_arrays
from stedfm_hf.labels.annotated.stored import StoredMask, count_pixels
from stedfm_hf.labels.annotated.targets import make_rule
from stedfm_hf.runs import UserError


def annotated(
    *masks: Sequence[Any],
    classes: Sequence[str] | Mapping[int, str] | None = None,
    target_type: str | None = None,
) -> AnnotatedImages:
    arrays = [np.array(mask) for mask in masks]
    images = [np.zeros(array.shape[-2:]) for array in arrays]
    return from_arrays("cells", images, arrays, classes=classes, target_type=target_type)


def test_255_is_a_class_in_binary_masks_and_ignored_otherwise() -> None:
    binary = annotated([[0, 255]], [[255, 255]])
    assert binary.classes == ("background", "class 1") and binary.target(1).tolist() == [[1, 1]]
    left = annotated([[0, 255]], [[1, 255]])
    assert left.target(0).tolist() == [[0, 255]] and left.counts() == {"background": 1, "class 1": 1}
    assert annotated([[0, 255, 3]], classes={0: "background", 3: "a", 255: "b"}).target(0).tolist() == [[0, 2, 1]]


def test_two_numbers_of_one_class_are_merged_by_name() -> None:
    data = annotated([[0, 255]], [[0, 1]], classes={0: "background", 1: "spot", 255: "spot"})
    assert data.target(0).tolist() == data.target(1).tolist() == [[0, 1]]


def test_zero_is_the_background_unless_it_is_named() -> None:
    data = annotated([[0, 3, 6]], [[0, 0, 3]], classes={3: "spine", 6: "spine"})
    assert data.classes == ("background", "spine") and data.target(0).tolist() == [[0, 1, 1]]
    assert annotated([[3, 6]], classes={3: "spine", 6: "dendrite"}).classes == ("spine", "dendrite")
    planes = annotated([[0, 3, 6]], classes={3: "spine", 6: "spine"}, target_type="multi_label")
    assert planes.classes == ("spine",) and planes.target(0).tolist() == [[[0, 1, 1]]]
    with pytest.raises(
        UserError, match="contains 6, but the classes are 0 background, 3 spine.*6=background for the background"
    ):
        annotated([[0, 3, 6]], classes={3: "spine"})


def test_zero_can_be_a_class() -> None:
    data = annotated([[0, 1, 1, 255]], classes={0: "cell", 1: "gap"})
    assert data.background is None and data.annotated[0] == 0.75


def test_numbers_with_one_name_are_one_class() -> None:
    data = annotated([[0, 1, 2]], classes={0: "background", 1: "rings", 2: "rings"})
    assert data.classes == ("background", "rings") and data.target(0).tolist() == [[0, 1, 1]]
    assert data.counts() == {"background": 1, "rings": 2}


def test_multi_label_numbers_are_bits_unless_0_is_named() -> None:
    bits = annotated([[0, 1, 2, 3]], target_type="multi_label", classes=["rings", "fibres"])
    assert bits.target(0).tolist() == [[[0, 1, 0, 1]], [[0, 0, 1, 1]]]
    assert bits.counts() == {"rings": 2, "fibres": 2} and bits.annotated[0] == 0.75
    with pytest.raises(UserError, match="contains 4, but the classes are 1 rings, 2 fibres"):
        annotated([[0, 4]], target_type="multi_label", classes=["rings", "fibres"])
    numbers = annotated(
        [[0, 1, 3, 255]], target_type="multi_label", classes=["background", "rings", "fibres", "puncta"]
    )
    assert numbers.classes == ("rings", "fibres", "puncta")
    assert numbers.target(0).tolist() == [[[0, 1, 0, 0]], [[0, 0, 0, 0]], [[0, 0, 1, 0]]]
    region = numbers.region(0)
    assert region is not None and region.tolist() == [[True, True, True, False]]


def test_planes_that_do_not_overlap_can_be_a_single_label() -> None:
    planes = [[[255, 0, 0]], [[0, 255, 0]]]
    data = annotated(planes, target_type="single_label", classes=["rings", "fibres"])
    assert data.classes == ("background", "rings", "fibres") and data.target(0).tolist() == [[1, 2, 0]]
    assert data.counts() == {"background": 1, "rings": 1, "fibres": 1}
    with pytest.raises(UserError, match="mask of 0, 1 pixels belong to several classes"):
        annotated([[[1, 1]], [[0, 1]]], target_type="single_label")


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        ([[[0, 1]]], {"target_type": "multilabel"}, "unknown; choose from single_label"),
        ([[[0, 1]]], {"classes": ["a", "a"]}, "are not unique"),
        ([[[0, 1]]], {"classes": []}, "a class has no name"),
        ([[[0, 1]]], {"classes": ["a,b"]}, "'a,b' is the name of one class; .* --classes a --classes b"),
        ([[[0, 1]], [[[0, 1]], [[0, 1]]]], {}, "different types"),
        ([[[[0, 1]], [[0, 7]]]], {}, r"has 2 planes and contains 7.*--series all for a stack"),
        ([[[[0, 1]], [[0, 1]]]], {"classes": ["a"]}, "2 planes .* but 1 classes are named"),
        ([[[0, 0.5]]], {"target_type": "single_label"}, "fractions"),
        ([[list(range(100))]], {}, "each object has a number"),
        ([[list(range(14))]], {}, "contain 13 numbers. If each object has a number, save 1 for all objects"),
        (
            [[[0, 255]], [[0, 1]]],
            {},
            r"masks of .* contain only 0 and 255.* If 255 is a class, use --classes 1=NAME --classes 255=NAME",
        ),
        ([[[0, -1]]], {}, "from -1 to 0"),
        ([[[0, 0]]], {}, "every mask is empty .1 mask"),
    ],
)
def test_invalid_masks_are_an_error(masks: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        annotated(*masks, **options)


@given(
    seed=st.integers(0, 1000),
    planes=st.integers(1, 3),
    top=st.integers(1, 4),
    target_type=st.sampled_from([None, "single_label", "multi_label", "soft"]),
)
def test_counted_pixels_agree_with_the_targets(seed: int, planes: int, top: int, target_type: str | None) -> None:
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, (top if planes == 1 else 1) + 1, (planes, 4, 5)).astype(np.uint8)
    stored[:, 0, 0] = 1
    mask = StoredMask(stored)
    try:
        rule = make_rule({"a": count_pixels(mask)}, where="cells", target_type=target_type)
    except UserError:
        assert target_type == "single_label" and planes > 1
        return
    target, facts = rule.target(mask), count_pixels(mask)
    if rule.target_type == "single_label":
        expected = np.bincount(target.ravel(), minlength=len(rule.classes))
        touched = int((target > 0).sum())
    else:
        expected, touched = (target > 0).sum(axis=(1, 2)), int((target > 0).any(axis=0).sum())
    np.testing.assert_array_equal(rule.pixels(facts), expected)
    assert rule.annotated(facts) == touched
