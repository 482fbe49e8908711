"""The comparison of two models: largest differences, and when an export is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stedfm_hf.exports.comparing import compare, random_images, two_sizes
from stedfm_hf.runs import UserError
from tests.models import tiny_config

CONFIG = tiny_config()


def compared(change: Any) -> Any:
    def reference(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"tokens": images.flatten(1), "other": images}

    return compare(
        reference, lambda images: {"tokens": change(images.flatten(1))}, random_images(CONFIG, two_sizes(CONFIG))
    )


def test_sizes_are_the_crop_and_one_that_is_not_square() -> None:
    assert compared(lambda values: values).sizes == ((32, 32), (40, 72))


def test_the_largest_difference_is_found() -> None:
    def change(values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        values[1, 7] += 0.25
        return values

    found = compared(change)
    assert found.differences == {"tokens": pytest.approx(0.25)} and found.largest == pytest.approx(0.25)
    assert found.cosine < 1 and "0.25 (tokens)" in found.describe() and "40 x 72" in found.describe()
    with pytest.raises(UserError, match=r"differs from the model by 0\.25"):
        found.check("float32")
    found.check("int8")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_values_that_are_not_finite_are_refused(precision: str) -> None:
    with pytest.raises(UserError):
        compared(lambda values: values * float("nan")).check(precision)


def test_an_export_of_low_precision_that_points_elsewhere_is_refused() -> None:
    with pytest.raises(UserError, match="--precision float32"):
        compared(lambda values: values.flip(1)).check("int8")


def test_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"tokens: the export returns \(2, 5\)"):
        compared(lambda values: values[:, :5])
