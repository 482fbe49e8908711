"""Order of an epoch: each row once, the same order for all ranks, and different row groups for each rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.data.repository.shards import Shard
from stedfm_hf.data.streaming.order import Batching, EpochOrder

SHARDS = st.lists(
    st.lists(st.integers(1, 5), min_size=1, max_size=6).map(lambda groups: Shard("file", tuple(groups))),
    min_size=1,
    max_size=8,
)


def whole(order: EpochOrder) -> list[int]:
    return order.rows(0, len(order)).index.tolist()


@given(shards=SHARDS, seed=st.integers(0, 2**40), epoch=st.integers(0, 1000), open_shards=st.integers(1, 5))
def test_an_epoch_has_every_row_once(shards: list[Shard], seed: int, epoch: int, open_shards: int) -> None:
    order = EpochOrder(shards, seed=seed, epoch=epoch, open_shards=open_shards)
    rows = order.rows(0, len(order))
    assert sorted(rows.index.tolist()) == list(range(sum(shard.rows for shard in shards)))
    groups = np.concatenate([shard.row_groups for shard in shards])
    starts = np.cumsum([0, *groups])
    assert (rows.offset < groups[rows.group]).all()
    np.testing.assert_array_equal(starts[rows.group] + rows.offset, rows.index)
    assert (np.diff(rows.block) >= 0).all()


@given(shards=SHARDS, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_parts_of_an_order_make_the_whole_order(shards: list[Shard], cuts: list[int]) -> None:
    order = EpochOrder(shards, seed=3, epoch=1, open_shards=2)
    edges = [0, *sorted(min(cut, len(order)) for cut in cuts), len(order)]
    pieces = [order.rows(a, b).index.tolist() for a, b in zip(edges[:-1], edges[1:], strict=True)]
    assert sum(pieces, []) == whole(order)


def test_epochs_and_seeds_have_different_orders() -> None:
    shards = [Shard("a", (4,) * 10), Shard("b", (4,) * 10)]
    orders = {
        tuple(whole(EpochOrder(shards, seed=seed, epoch=epoch, open_shards=2)))
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    }
    assert len(orders) == 4
    again = EpochOrder(shards, seed=0, epoch=1, open_shards=2)
    assert tuple(whole(again)) in orders


def test_a_block_holds_the_rows_of_no_more_shards_than_are_open() -> None:
    shards = [Shard(str(number), (3,) * 7) for number in range(11)]
    order = EpochOrder(shards, seed=0, epoch=0, open_shards=4)
    assert order.blocks == 3
    for number in range(order.blocks):
        rows = order.rows(*order.block_span(number))
        assert len(set((rows.group // 7).tolist())) <= 4


@pytest.mark.parametrize("world", [2, 3, 4, 8])
@pytest.mark.parametrize("count", [8, 40])
def test_a_rank_reads_few_row_groups_in_addition_to_its_part(world: int, count: int) -> None:
    """Shards as `build` writes them, at least as many as ranks; batches of 32."""
    shards = [Shard(str(number), (16,) * (64 - number % 5)) for number in range(count)]
    order = EpochOrder(shards, seed=0, epoch=0, open_shards=4)
    batching = Batching(len(order), 32, world, drop_last=True)
    for rank in range(world):
        met: set[int] = set()
        for number in range(batching.batches_from(0)):
            met.update(batching.batch(order, 0, number, rank)[0].group.tolist())
        assert len(met) * 16 * world / len(order) <= 1.2


@given(shards=SHARDS, size=st.integers(1, 7), world=st.integers(1, 4), drop=st.booleans())
def test_ranks_share_every_global_batch(shards: list[Shard], size: int, world: int, drop: bool) -> None:
    order = EpochOrder(shards, seed=5, epoch=2, open_shards=2)
    batching = Batching(len(order), size, world, drop)
    seen: list[int] = []
    for number in range(batching.batches_from(0)):
        parts = [batching.batch(order, 0, number, rank) for rank in range(world)]
        assert all(len(rows) == len(valid) == size for rows, valid in parts)
        valid_rows = [row for rows, valid in parts for row in rows.index[valid].tolist()]
        start = number * size * world
        assert sorted(valid_rows) == sorted(order.rows(start, start + size * world).index.tolist())
        counts = [int(valid.sum()) for _, valid in parts]
        assert max(counts) - min(counts) <= 1
        seen += valid_rows
    if drop:
        assert len(seen) == len(set(seen)) == len(order) // (size * world) * size * world
    else:
        assert sorted(seen) == list(range(len(order)))


def test_each_epoch_drops_different_rows() -> None:
    shards = [Shard("a", (5,) * 6), Shard("b", (5,) * 4)]
    left = set()
    for epoch in range(6):
        order = EpochOrder(shards, seed=0, epoch=epoch, open_shards=2)
        left.add(tuple(sorted(order.rows(48, 50).index.tolist())))
    assert len(left) > 3


def test_consecutive_rows_come_evenly_from_all_row_groups() -> None:
    order = EpochOrder([Shard("a", (16,) * 32), Shard("b", (16,) * 32)], seed=0, epoch=0, open_shards=2)
    for start in range(0, len(order) - 256, 64):
        counts = np.bincount(order.rows(start, start + 256).group, minlength=64)
        assert counts.min() >= 2 and counts.max() <= 6
