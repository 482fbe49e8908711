"""Which map of a model is of which class of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stedfm_hf.evaluation.segmentation.methods import ClassMatch, match_classes
from stedfm_hf.runs import UserError


def match(classes: Sequence[str], target_type: str, wanted: Sequence[str], data_type: str) -> ClassMatch:
    return match_classes("net", classes, target_type, data="cells", data_classes=wanted, data_type=data_type)


def test_names_decide_whatever_the_order() -> None:
    found = match(["fibres", "Rings "], "multi_label", ["rings", "fibres"], "soft")
    assert found.order == (1, 0) and not found.note
    np.testing.assert_array_equal(found(np.arange(2.0)[:, None, None]).ravel(), [1, 0])


def test_classes_without_names_are_taken_by_their_order_and_it_is_said() -> None:
    found = match(["LABEL_0", "LABEL_1"], "multi_label", ["rings", "fibres"], "multi_label")
    assert found.order == (0, 1) and "LABEL_1 = fibres" in found.note
    found = match(["background", "rings"], "single_label", ["background", "class 1"], "single_label")
    assert found.order == (0, 1) and "rings = class 1" in found.note


@pytest.mark.parametrize(
    ("classes", "wanted"), [(["rings"], ["rings", "fibres"]), (["rings", "puncta"], ["rings", "fibres"])]
)
def test_other_classes_are_refused(classes: list[str], wanted: list[str]) -> None:
    with pytest.raises(UserError, match=r"model net: knows the classes .*, and cells has rings, fibres; name those"):
        match(classes, "multi_label", wanted, "multi_label")


def test_a_background_that_one_side_lacks_is_made_or_left_out() -> None:
    made = match(["rings", "fibres"], "multi_label", ["background", "fibres", "rings"], "single_label")
    assert made.order == (None, 1, 0) and "background where none reaches a half" in made.note
    np.testing.assert_allclose(made(np.array([0.3, 0.6])[:, None, None]).ravel(), [0.4, 0.6, 0.3])
    spared = match(["background", "rings", "fibres"], "single_label", ["fibres", "rings"], "multi_label")
    assert spared.order == (2, 1)


def test_what_cannot_be_masks_is_refused() -> None:
    with pytest.raises(UserError, match="predicts values, not classes"):
        match(["density"], "regression", ["density"], "soft")
    with pytest.raises(UserError, match="exclude each other and have no background"):
        match(["a", "b"], "multi_label", ["a", "b"], "single_label")
