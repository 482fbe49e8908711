"""Matching of the classes of a model to the classes of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stedfm_hf.evaluation.segmentation.methods import ClassMatch, match_classes
from stedfm_hf.runs import UserError


def match(classes: Sequence[str], target_type: str, data_classes: Sequence[str], data_type: str) -> ClassMatch:
    return match_classes("net", classes, target_type, data="cells", data_classes=data_classes, data_type=data_type)


def test_classes_are_matched_by_name() -> None:
    found = match(["fibres", "Rings "], "multi_label", ["rings", "fibres"], "soft")
    assert found.order == (1, 0) and not found.note
    np.testing.assert_array_equal(found(np.arange(2.0)[:, None, None]).ravel(), [1, 0])


def test_classes_without_names_are_matched_by_order() -> None:
    found = match(["LABEL_0", "LABEL_1"], "multi_label", ["rings", "fibres"], "multi_label")
    assert found.order == (0, 1) and "LABEL_1 = fibres" in found.note
    found = match(["background", "rings"], "single_label", ["background", "class 1"], "single_label")
    assert found.order == (0, 1) and "rings = class 1" in found.note


@pytest.mark.parametrize(
    ("classes", "data_classes"), [(["rings"], ["rings", "fibres"]), (["rings", "puncta"], ["rings", "fibres"])]
)
def test_other_classes_raise_an_error(classes: list[str], data_classes: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"model net: has the classes .*, but cells has rings, fibres\. Use the class names"
    ):
        match(classes, "multi_label", data_classes, "multi_label")


def test_a_background_that_only_one_has_is_added_or_ignored() -> None:
    added = match(["rings", "fibres"], "multi_label", ["background", "fibres", "rings"], "single_label")
    assert added.order == (None, 1, 0) and "background where no probability reaches one half" in added.note
    np.testing.assert_allclose(added(np.array([0.3, 0.6])[:, None, None]).ravel(), [0.4, 0.6, 0.3])
    ignored = match(["background", "rings", "fibres"], "single_label", ["fibres", "rings"], "multi_label")
    assert ignored.order == (2, 1)


def test_models_without_masks_raise_an_error() -> None:
    with pytest.raises(UserError, match="predicts values, not classes"):
        match(["density"], "regression", ["density"], "soft")
    with pytest.raises(UserError, match="are exclusive and have no background"):
        match(["a", "b"], "multi_label", ["a", "b"], "single_label")
