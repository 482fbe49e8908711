"""Samples of each step, the size of the crops, and the cache of images."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from stedfm_hf.runs import UserError
from stedfm_hf.training.classification.data import training_size
from stedfm_hf.training.finetuning.data import CachedItems, SampleNumbers


@pytest.mark.parametrize(("batch_size", "accumulation", "world"), [(8, 1, 1), (4, 2, 1), (4, 1, 2), (2, 2, 2)])
def test_a_step_has_the_same_samples_for_any_number_of_processes(
    batch_size: int, accumulation: int, world: int
) -> None:
    ranks = [islice(SampleNumbers(batch_size, accumulation, rank, world), 3 * accumulation) for rank in range(world)]
    taken = [list(each) for each in ranks]
    for step in range(3):
        mine = [batch for rank in taken for batch in rank[step * accumulation : (step + 1) * accumulation]]
        assert sorted(sum(mine, [])) == list(range(8 * step, 8 * step + 8))


def test_the_size_is_that_of_the_model_or_the_largest_that_fits_the_smallest_image() -> None:
    shapes = [(70, 45), (30, 90)]
    assert training_size(shapes, ["a", "b"], image_size=16, patch_size=8) == 16
    assert training_size(shapes, ["a", "b"], image_size=64, patch_size=8) == 24
    with pytest.raises(UserError, match="b: 30 x 90 pixels are smaller than a patch"):
        training_size(shapes, ["a", "b"], image_size=64, patch_size=32)


def test_images_are_read_once_up_to_the_limit_of_the_cache() -> None:
    reads = []

    def read(number: int) -> np.ndarray:
        reads.append(number)
        return np.zeros((1, 4, 4), np.float32)

    known = CachedItems(read, 3, size=lambda image: image.nbytes, limit=2 * 64)
    for number in (0, 1, 2, 0, 1, 2):
        assert known[number].shape == (1, 4, 4)
    assert reads == [0, 1, 2, 2]  # the third exceeds the limit
