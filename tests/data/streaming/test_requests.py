"""Requests of a stream from another file system: bounded for each shard, and few to open a data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.data import dataset_stats, stream
from stedfm_hf.data.repository.layout import Crop, Scaling
from tests.data.repos import write_crops, write_repo
from tests.hub_server import Hub, hub_server, use_hub

SHARDS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repo(tmp_path_factory.mktemp("repo") / "crops", [8] * SHARDS, group=1)


@pytest.fixture
def hub(folder: Path, loopback: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server(crops=folder) as hub:
        use_hub(hub, monkeypatch)
        yield hub


def requests_of_shards(hub: Hub) -> Counter[str]:
    """Number of requests for each shard, and of all other requests."""
    names = (re.search(r"resolve/.*(train-\d+)", each) for each in hub.requests)
    return Counter(name[1] if name else "other" for name in names)


def test_opening_needs_few_requests(hub: Hub) -> None:
    stream("lab/crops", batch_size=8)
    requests = requests_of_shards(hub)
    assert sum(requests.values()) <= 8 and requests.keys() == {"train-00000", "other"}


@pytest.mark.parametrize(("world_size", "most"), [(1, 1), (4, 2)])
def test_a_rank_makes_at_most_two_requests_for_a_shard(hub: Hub, world_size: int, most: int) -> None:
    found = []
    for rank in range(world_size):
        batches = stream("lab/crops", batch_size=8, rank=rank, world_size=world_size, seed=1)
        hub.requests.clear()
        found += [index for batch in batches for index in batch["index"].tolist()]
        requests = requests_of_shards(hub)
        assert requests.pop("other", 0) <= 4
        assert max(requests.values()) <= most
    assert sorted(found) == list(range(8 * SHARDS))


def test_a_resumed_stream_reads_only_the_remaining_shards(hub: Hub, folder: Path) -> None:
    batches = stream("lab/crops", batch_size=8)
    for number, _ in enumerate(batches):
        if number == 15:
            state = batches.state_dict()
            break
    resumed = stream("lab/crops", batch_size=8)
    resumed.load_state_dict(state)
    hub.requests.clear()
    rows = [batch["index"].tolist() for batch in resumed]
    requests = requests_of_shards(hub)
    del requests["other"]
    assert len(requests) == SHARDS / 3 and max(requests.values()) == 1
    assert rows == [batch["index"].tolist() for batch in stream(folder, batch_size=8)][16:]


def test_statistics_make_one_request_for_a_shard(hub: Hub, folder: Path) -> None:
    record = dataset_stats("lab/crops").record
    requests = requests_of_shards(hub)
    assert requests.pop("other") <= 16
    assert requests.pop("train-00000") <= 3 and set(requests.values()) == {1}  # its schema is read when it is opened
    assert record == dataset_stats(folder).record


def test_a_few_columns_are_read_without_the_pixels(
    tmp_path: Path, loopback: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedfm_hf.data.repository.files import find_split
    from stedfm_hf.data.repository.shard_reader import ShardReader

    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 64), dtype=np.uint8)
    crops = [Crop(each, Scaling(0.0, 90.0, applied=True), source=f"{n}") for n, each in enumerate(pixels)]
    with hub_server(crops=write_crops(tmp_path / "crops", [crops], group=16)) as hub:
        use_hub(hub, monkeypatch)
        reader = ShardReader(find_split("lab/crops", "train"), ["source"])
        hub.sent = 0
        assert reader.read(0, range(4))["source"].to_pylist() == [f"{n}" for n in range(64)]
        assert hub.sent < 150_000 < pixels.nbytes
