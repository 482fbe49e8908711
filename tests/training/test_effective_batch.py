from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.runs import UserError
from stedfm_hf.training.effective_batch import split_batch

small = st.integers(1, 64)


@given(world_size=small, accumulation=small, per_device=small, limit=st.integers(1, 512))
def test_the_parts_add_up_to_the_effective_batch(
    world_size: int, accumulation: int, per_device: int, limit: int
) -> None:
    effective = world_size * accumulation * per_device
    try:
        size, times = split_batch(effective, world_size, limit=limit)
    except UserError as error:
        assert "the nearest that can" in str(error)
        return
    assert world_size * size * times == effective
    assert min(limit, effective // world_size) / 4 <= size <= limit
    # Nothing larger would divide the batch.
    assert not [n for n in range(size + 1, limit + 1) if effective // world_size % n == 0]


@given(world_size=small, accumulation=small, per_device=small)
def test_given_values_are_kept(world_size: int, accumulation: int, per_device: int) -> None:
    effective, expected = world_size * accumulation * per_device, (per_device, accumulation)
    assert split_batch(effective, world_size, limit=1, per_device=per_device) == expected
    assert split_batch(effective, world_size, limit=1, accumulation=accumulation) == expected
    assert split_batch(effective, world_size, limit=1, per_device=per_device, accumulation=accumulation) == expected


@given(effective=st.integers(1, 3000), world_size=small, limit=st.integers(1, 300))
def test_the_values_that_an_error_names_work_and_none_is_nearer(effective: int, world_size: int, limit: int) -> None:
    try:
        split_batch(effective, world_size, limit=limit)
    except UserError as error:
        named = [int(word) for word in str(error).rpartition(": ")[2].split(" or ")]
        for value in named:
            split_batch(value, world_size, limit=limit)
        nearest = min(abs(value - effective) for value in named)
        for value in range(max(1, effective - nearest + 1), effective + nearest):
            with pytest.raises(UserError):
                split_batch(value, world_size, limit=limit)


@pytest.mark.parametrize(
    ("world_size", "limit", "expected"),
    [(4, 256, (256, 1)), (1, 256, (256, 4)), (16, 64, (64, 1)), (2, 512, (512, 1)), (8, 256, (128, 1))],
)
def test_the_published_batch_on_other_machines(world_size: int, limit: int, expected: tuple[int, int]) -> None:
    assert split_batch(1024, world_size, limit=limit) == expected


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"world_size": 3}, "3 processes of at most 256 samples; the nearest that can: 1020 or 1026"),
        ({"world_size": 1, "per_device": 100}, "of 100 samples; the nearest that can: 1000 or 1100"),
        ({"world_size": 1, "accumulation": 3}, "of at most 256 samples, 3 times; the nearest that can: 1023 or 1026"),
        ({"world_size": 2, "per_device": 64, "accumulation": 4}, "64 samples, 4 times; the nearest that can: 512"),
        ({"world_size": 2000}, "the nearest that can: 2000"),
    ],
)
def test_an_uneven_batch_size_is_refused_with_the_nearest_even_one(given: dict[str, int], line: str) -> None:
    with pytest.raises(UserError, match="--effective-batch-size 1024 cannot be divided evenly") as caught:
        split_batch(1024, limit=256, **given)
    assert line in str(caught.value)


@pytest.mark.parametrize("wrong", [{"effective": 0}, {"per_device": -1}, {"accumulation": 0}, {"limit": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        split_batch(**({"effective": 8, "world_size": 1, "limit": 8} | wrong))
