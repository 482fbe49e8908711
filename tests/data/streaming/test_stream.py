"""Streaming: each crop exactly once on any number of ranks and workers, resumable at each batch."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stedfm_hf.data import EpochBatches, LocalCrops, stream
from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.runs import UserError
from tests.data.repos import number_of, write_repo

pytestmark = pytest.mark.filterwarnings("ignore:.*ranks reads", "ignore:This DataLoader will create")
LENGTHS = (11, 4, 9, 1, 7)
ROWS = sum(LENGTHS)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repo(tmp_path_factory.mktemp("repo"), LENGTHS)


def valid_rows(batches: list[dict[str, Any]]) -> list[int]:
    return [int(i) for batch in batches for i in batch["index"][batch["valid"]]]


def assert_right_pixels(batch: dict[str, Any]) -> None:
    for pixels, index in zip(batch["pixels"].numpy(), batch["index"].tolist(), strict=True):
        assert number_of(pixels) == index


@settings(max_examples=15)
@given(
    world=st.integers(1, 4),
    workers=st.integers(0, 3),
    batch_size=st.integers(1, 5),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    group=st.integers(1, 4),
    epoch=st.integers(0, 5),
    index=st.booleans(),
)
def test_every_crop_exactly_once_on_any_number_of_ranks_and_threads(
    tmp_path_factory: pytest.TempPathFactory,
    world: int,
    workers: int,
    batch_size: int,
    lengths: list[int],
    group: int,
    epoch: int,
    index: bool,
) -> None:
    folder = write_repo(tmp_path_factory.mktemp("any"), lengths, group=group, index=index)
    if sum(lengths) < world:
        with pytest.raises(UserError, match="use fewer ranks"):
            stream(folder, batch_size=batch_size, rank=0, world_size=world)
        return
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "seed": 3,
        "epoch": epoch,
        "drop_last": False,
        "workers": workers,
    }
    ranks = [list(stream(folder, rank=rank, world_size=world, **options)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    for batches in ranks:
        for batch in batches:
            assert batch["pixels"].shape == (batch_size, 1, 4, 4) and batch["pixels"].dtype == torch.uint16
            assert_right_pixels(batch)
    assert sorted(sum(map(valid_rows, ranks), [])) == list(range(sum(lengths)))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_worker_processes_yield_the_batches_of_one_process(repo: Path, world: int, processes: int) -> None:
    for rank in range(world):
        batches = stream(repo, batch_size=2, seed=1, rank=rank, world_size=world, drop_last=False, workers=0)
        alone = list(batches)
        loader = DataLoader(batches, batch_size=None, num_workers=processes)
        shared = list(loader)
        assert [batch["index"].tolist() for batch in shared] == [batch["index"].tolist() for batch in alone]
        assert len(loader) == len(alone)


def test_worker_processes_may_be_spawned(repo: Path) -> None:
    batches = stream(repo, batch_size=4, drop_last=False)
    loader = DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert sorted(valid_rows(list(loader))) == list(range(ROWS))


def test_two_ranks_see_the_crops_of_one_rank_with_twice_the_batch_size(repo: Path) -> None:
    one = list(stream(repo, batch_size=6, seed=4))
    two = [list(stream(repo, batch_size=3, seed=4, rank=rank, world_size=2)) for rank in (0, 1)]
    accumulated = list(stream(repo, batch_size=3, seed=4))
    for step, batch in enumerate(one):
        wanted = sorted(batch["index"].tolist())
        assert sorted(sum((ranks[step]["index"].tolist() for ranks in two), [])) == wanted
        assert sorted(sum((accumulated[2 * step + k]["index"].tolist() for k in (0, 1)), [])) == wanted


@settings(max_examples=20)
@given(stops=st.lists(st.integers(0, 6), min_size=3, max_size=3), workers=st.integers(0, 2), drop=st.booleans())
def test_three_resumes_in_an_epoch_give_the_uninterrupted_sequence(
    repo: Path, stops: list[int], workers: int, drop: bool
) -> None:
    options: dict[str, Any] = {"batch_size": 2, "seed": 9, "epoch": 2, "drop_last": drop, "workers": workers}
    unbroken = [batch["index"].tolist() for batch in stream(repo, **options)]
    state: dict[str, Any] | None = None
    got: list[list[int]] = []
    for stop in stops:
        batches = stream(repo, **options | {"epoch": 0})
        if state is not None:
            batches.load_state_dict(json.loads(json.dumps(state)))
        else:
            batches.set_epoch(2)
        for count, batch in enumerate(batches):
            if count == stop:
                break
            got.append(batch["index"].tolist())
            state = batches.state_dict()
        state = state or batches.state_dict() | {"position": 0}
    batches = stream(repo, **options)
    batches.load_state_dict(state or {})
    got += [batch["index"].tolist() for batch in batches]
    assert got == unbroken


@settings(max_examples=20)
@given(before=st.integers(1, 3), after=st.integers(1, 4), steps=st.integers(0, 5))
def test_a_resume_with_another_number_of_ranks_loses_and_repeats_nothing(
    repo: Path, before: int, after: int, steps: int
) -> None:
    options: dict[str, Any] = {"batch_size": 2, "seed": 1, "drop_last": False, "workers": 0}
    seen: list[int] = []
    states = []
    for rank in range(before):
        batches = stream(repo, rank=rank, world_size=before, **options)
        iterator = iter(batches)
        seen += valid_rows([next(iterator) for _ in range(min(steps, len(batches)))])
        states.append(batches.state_dict())
    assert all(state == states[0] for state in states)
    for rank in range(after):
        batches = stream(repo, rank=rank, world_size=after, **options)
        batches.load_state_dict(states[0])
        seen += valid_rows(list(batches))
    assert Counter(seen) == Counter(range(ROWS))


def test_a_resume_after_worker_processes_counts_the_used_batches(repo: Path) -> None:
    options: dict[str, Any] = {"batch_size": 2, "seed": 1, "workers": 0}
    whole = [batch["index"].tolist() for batch in stream(repo, **options)]
    batches = stream(repo, **options)
    loader = iter(DataLoader(batches, batch_size=None, num_workers=2))
    got = [next(loader)["index"].tolist() for _ in range(5)]
    again = stream(repo, **options)
    again.load_state_dict(batches.state_dict(batches=5))
    assert got + [batch["index"].tolist() for batch in again] == whole


def test_a_resume_reads_no_more_shards_again_than_are_open(repo: Path) -> None:
    batches = stream(repo, batch_size=2, open_shards=2, workers=0)
    read = []
    for _ in batches:
        read.append(batches.bytes_read)
    total = sum(pq.ParquetFile(path).metadata.num_rows for path in repo.glob("data/*.parquet"))
    assert total == ROWS
    for steps in range(len(read)):
        state = stream(repo, batch_size=2, open_shards=2).state_dict(batches=steps)
        rest = stream(repo, batch_size=2, open_shards=2, workers=0)
        rest.load_state_dict(state)
        list(rest)
        order = rest._order
        block = order.block_at(2 * steps)
        again = {int(group) for group in order.rows(order.block_span(block)[0], 2 * steps).group}
        assert rest.bytes_read <= read[-1]
        assert len({int(np.searchsorted(np.cumsum([-(-n // 2) for n in LENGTHS]), g, "right")) for g in again}) <= 2


def test_each_iteration_has_the_order_of_the_epoch(repo: Path) -> None:
    batches = stream(repo, batch_size=4)
    first, again = [[b["index"].tolist() for b in batches] for _ in range(2)]
    batches.set_epoch(1)
    assert first == again != [b["index"].tolist() for b in batches]


def test_closing_the_stream_stops_the_threads(repo: Path) -> None:
    for batch in stream(repo, batch_size=1, workers=3):
        assert batch["valid"].all()
        break
    for thread in threading.enumerate():
        if thread.name.startswith("stedfm-stream"):
            thread.join(timeout=60)  # seconds: without the stop it would wait for ever
            assert not thread.is_alive()


def test_the_stream_reads_other_columns(repo: Path) -> None:
    batch = next(iter(stream(repo, batch_size=3, columns=("source", "y", "label", "mask", "foreground_fraction"))))
    assert batch["source"] == [f"source {i // 3}" for i in batch["index"].tolist()]
    assert batch["y"].tolist() == batch["index"].tolist()
    assert batch["label"].tolist() == [-1, -1, -1]
    assert batch["mask"].shape == (3, 4, 4)
    assert batch["intensity_range"].tolist() == [[0.0, 255.0]] * 3


def test_the_map_style_data_set_gives_the_same_batches(repo: Path) -> None:
    crops = LocalCrops(repo, "train")
    assert len(crops) == ROWS and number_of(crops[17]["pixels"].numpy()) == 17
    for rank in range(3):
        options: dict[str, Any] = {"batch_size": 2, "seed": 7, "epoch": 1, "drop_last": False, "rank": rank}
        sampler = EpochBatches(crops, world_size=3, **options)
        local = list(DataLoader(crops, sampler=sampler, batch_size=None, num_workers=2 * (rank == 1)))
        streamed = list(stream(repo, "train", world_size=3, **options))
        assert len(local) == len(streamed) == len(sampler)
        for one, other in zip(local, streamed, strict=True):
            assert set(one) == set(other)
            for name in one:
                torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def test_datasets_reads_the_same_rows(repo: Path) -> None:
    rows = datasets.load_dataset(str(repo), split="train", streaming=True)
    assert [row["y"] for row in rows] == list(range(ROWS))


def test_hub_paths_are_accepted(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    real = datasets.load_dataset_builder

    def builder(name: str, config: str, *, revision: str | None, token: str | None) -> Any:
        asked.append((name, revision))
        return real(str(repo), config)

    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name, **_: ["crops", "preview"])
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    for name in ("lab/crops", "hf://datasets/lab/crops", "hf://datasets/lab/crops@v2"):
        assert len(stream(name, batch_size=4)) == ROWS // 4
    assert asked == [("lab/crops", None), ("lab/crops", None), ("lab/crops", "v2")]


def test_too_few_shards_for_the_ranks_are_reported(tmp_path: Path) -> None:
    folder = write_repo(tmp_path, [40], group=40)
    with pytest.warns(UserWarning, match=r"reads 2\.0/2 of split 'train'.*1 shards"):
        stream(folder, batch_size=4, rank=0, world_size=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 2, "world_size": 2}, "rank 2 is not valid with 2 ranks"),
        ({"rank": 1}, "give both or neither"),
        ({"rank": 0, "world_size": 40}, "32 crops for 40 ranks"),
        ({"batch_size": 33}, "fewer than one batch"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"columns": ("pixel",)}, "unknown column 'pixel'"),
        ({"split": "test"}, "has no split 'test'; choose from train"),
    ],
)
def test_invalid_arguments_are_refused(repo: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        stream(repo, **{"batch_size": 4} | options)


def test_a_missing_data_set_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: no such folder"):
        stream(tmp_path / "nothing", batch_size=1)


@pytest.mark.parametrize("index", [True, False])
def test_a_truncated_shard_is_reported(tmp_path: Path, index: bool) -> None:
    folder = write_repo(tmp_path, (6, 6), index=index)
    shard = sorted(folder.glob("data/*"))[1]
    os.truncate(shard, shard.stat().st_size - 200)
    with pytest.raises(UserError, match="train-00001-of-00002.parquet: cannot be read"):
        list(stream(folder, batch_size=2))


def test_a_shard_that_does_not_match_the_index_is_reported(tmp_path: Path) -> None:
    folder = write_repo(tmp_path, (6, 6))
    shards = sorted(folder.glob("data/*"))
    pq.write_table(pq.read_table(shards[1]).slice(0, 4), shards[1])
    with pytest.raises(UserError, match="holds 4 rows in 1 row groups, but index.json lists 6 in 3"):
        list(stream(folder, batch_size=2))


def test_a_shard_with_other_columns_is_reported(tmp_path: Path) -> None:
    folder = write_repo(tmp_path, (6, 6), group=6)
    shards = sorted(folder.glob("data/*"))
    pq.write_table(pq.read_table(shards[1]).drop_columns(["dtype"]), shards[1])
    with pytest.raises(UserError, match="00001-of-00002.parquet: has no column dtype"):
        list(stream(folder, batch_size=2))


def test_crops_of_another_size_are_reported(tmp_path: Path) -> None:
    folder = write_repo(tmp_path, (6,), group=6)
    (shard,) = folder.glob("data/*")
    table = pq.read_table(shard)
    heights = [4, 4, 2, 4, 4, 4]
    at = table.schema.get_field_index("height")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(heights, pa.int32())), shard)
    with pytest.raises(UserError, match=r"00000-of-00001.parquet: crops of different sizes or dtypes"):
        list(stream(folder, batch_size=2, workers=2))


def test_the_state_of_another_stream_is_refused(repo: Path) -> None:
    state = stream(repo, batch_size=2, seed=0).state_dict()
    with pytest.raises(UserError, match="seed: 0 before, 1 now"):
        stream(repo, batch_size=2, seed=1).load_state_dict(state)


def test_a_stream_can_be_pickled(repo: Path) -> None:
    batches = stream(repo, batch_size=4)
    list(batches)
    copy = pickle.loads(pickle.dumps(batches))
    assert [b["index"].tolist() for b in copy] == [b["index"].tolist() for b in batches]


def test_an_index_of_other_files_is_ignored(tmp_path: Path) -> None:
    folder = write_repo(tmp_path, (4, 4))
    record = json.loads((folder / INDEX_FILE).read_text())
    record["splits"]["train"].pop()
    (folder / INDEX_FILE).write_text(json.dumps(record))
    assert sorted(valid_rows(list(stream(folder, batch_size=2)))) == list(range(8))


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_that_live_on_follow_the_main_process(repo: Path, context: str) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "seed": 0, "workers": 0, "drop_last": False}

    def rows(batches: Any) -> list[list[int]]:
        return [batch["index"].tolist() for batch in batches]

    batches = stream(repo, "train", **settings)
    loader = DataLoader(
        batches, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=context
    )
    epochs = [rows(stream(repo, "train", epoch=epoch, **settings)) for epoch in range(3)]
    assert epochs[0] != epochs[1]
    assert rows(loader) == epochs[0] == rows(loader)
    batches.set_epoch(1)
    assert rows(loader) == epochs[1]
    batches.seek(2, 3)
    assert rows(loader) == epochs[2][3:]
    assert rows(loader) == epochs[2]  # the position holds for one pass
    other = stream(repo, "train", **settings)
    other.seek(1, 2)
    batches.load_state_dict(other.state_dict())
    assert rows(loader) == epochs[1][2:]
    assert rows(loader) == epochs[1] and pickle.loads(pickle.dumps(batches)).epoch == 1


def test_a_copy_of_a_stream_has_its_own_position(repo: Path) -> None:
    batches = stream(repo, "train", batch_size=4)
    copied = pickle.loads(pickle.dumps(batches))
    copied.set_epoch(3)
    assert (batches.epoch, copied.epoch) == (0, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_accelerate_must_not_divide_a_stream_again(repo: Path, workers: int) -> None:
    loader = DataLoader(
        stream(repo, "train", batch_size=2, rank=0, world_size=2), batch_size=None, num_workers=workers
    )
    prepared = prepare_data_loader(loader, torch.device("cpu"), num_processes=1, process_index=0, put_on_device=True)
    with pytest.raises(UserError, match="accelerator.prepare"):
        list(prepared)
