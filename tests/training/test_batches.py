"""Batches of a pretraining: the samples of a step do not depend on processes, accumulation or interruptions."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stedfm_hf.data.repository.files import find_split
from stedfm_hf.runs import UserError
from stedfm_hf.training.batches import EndlessBatches, MixedSplit, divide_batch
from tests.data.repos import write_repo

pytestmark = pytest.mark.filterwarnings("ignore:.*ranks reads")


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_repo(tmp_path_factory.mktemp("repo"), lengths) for lengths in ((9, 8, 9), (5, 6))]


def steps(repos: list[Path], sizes: list[int], count: int, *, start: int = 0, **options: Any) -> list[list[int]]:
    """The samples of the first optimiser steps, of all ranks and accumulated batches together."""
    world, accumulation = options.pop("world_size", 1), options.get("accumulation", 1)
    found: list[list[int]] = [[] for _ in range(count)]
    for rank in range(world):
        sources = [MixedSplit(find_split(repo, "train"), size) for repo, size in zip(repos, sizes, strict=True)]
        batches = EndlessBatches(sources, seed=5, rank=rank, world_size=world, threads=0, **options)
        batches.start = start * accumulation
        for number, batch in enumerate(islice(batches, count * accumulation)):
            for part in batch["parts"]:
                epoch = int(part["epoch"])
                found[number // accumulation] += [1000 * epoch + index for index in part["index"].tolist()]
    return [sorted(step) for step in found]


def test_a_step_has_the_same_samples_for_any_number_of_processes(repos: list[Path]) -> None:
    whole = steps(repos[:1], [8], 10)
    assert whole == steps(repos[:1], [4], 10, world_size=2) == steps(repos[:1], [4], 10, accumulation=2)
    assert whole == steps(repos[:1], [2], 10, world_size=2, accumulation=2)
    assert [step[0] // 1000 for step in whole] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert all(len(set(sum(whole[first : first + 3], []))) == 24 for first in (0, 3, 6))


@settings(max_examples=10)
@given(start=st.integers(0, 12))
def test_it_resumes_after_any_step(repos: list[Path], start: int) -> None:
    assert steps(repos, [4, 2], 14)[start:] == steps(repos, [4, 2], 14 - start, start=start)


def test_samples_of_several_data_sets_have_different_indices(repos: list[Path]) -> None:
    for step in steps(repos, [4, 2], 6):
        numbers = [sample % 1000 for sample in step]
        assert sum(number < 26 for number in numbers) == 4 and sum(26 <= number < 37 for number in numbers) == 2


@given(size=st.integers(1, 200), weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_a_batch_is_divided_completely(size: int, weights: list[float]) -> None:
    if size < len(weights):
        with pytest.raises(UserError, match="cannot be divided"):
            divide_batch(size, weights)
        return
    counts = divide_batch(size, weights)
    assert sum(counts) == size and min(counts) >= 1


def test_less_than_one_effective_batch_is_refused(repos: list[Path]) -> None:
    with pytest.raises(UserError, match="has 26 crops, fewer than one effective batch \\(32\\)"):
        EndlessBatches([MixedSplit(find_split(repos[0], "train"), 8)], seed=0, accumulation=2, world_size=2)


def test_the_threads_end_with_the_iteration(repos: list[Path]) -> None:
    sources = [MixedSplit(find_split(repos[0], "train"), 8)]
    batches = iter(EndlessBatches(sources, seed=0, threads=2))
    assert len(list(islice(batches, 7))) == 7
    batches.close()  # type: ignore[attr-defined]
