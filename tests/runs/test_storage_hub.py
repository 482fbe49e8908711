"""Commands read images from a repository of the Hub and write results there, as in local folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from stedfm_hf import StedFmModel
from stedfm_hf.data import build
from stedfm_hf.inference import embed
from stedfm_hf.runs import UserError
from tests.hub_server import TOKEN, Hub, Repository, hub_server, use_hub
from tests.models import tiny_config

pytest.importorskip("upath")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as started:
        use_hub(started, monkeypatch)
        started.repositories["dataset", "lab/images"] = Repository(True)
        yield started


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(made)
    return made


@pytest.fixture
def local(hub: Hub, tmp_path: Path) -> Path:
    """Folder of images, which are also in the repository, below `plate`."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).poisson(5, (40, 48)).astype(np.uint16)
        np.save(folder / f"{number}.npy", pixels)
    files = {f"plate/{file.name}": file.read_bytes() for file in sorted(folder.iterdir())}
    hub.repositories["dataset", "lab/images"].commit("images", files)
    return folder


def test_embeddings_of_a_repository_are_those_of_a_folder(hub: Hub, local: Path, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "embeddings.parquet"
    expected = embed(local, output=target, model=model, device="cpu")
    remote = "hf://datasets/lab/images/results/embeddings.parquet"
    found = embed("hf://datasets/lab/images/plate", output=remote, model=model, device="cpu")
    assert found.table.equals(expected.table)
    repository = hub.repositories["dataset", "lab/images"]
    assert repository.files["results/embeddings.parquet"] == target.read_bytes()
    assert {name for name in repository.files if not name.startswith("plate/")} == {
        "results/embeddings.parquet",
        "results/embeddings.parquet.manifest.json",
    }
    commits = len(repository.commits)
    embed("hf://datasets/lab/images/plate", output=remote, model=model, device="cpu")
    assert len(repository.commits) == commits


def test_a_data_set_is_built_in_a_repository(hub: Hub, local: Path, tmp_path: Path) -> None:
    build(local, tmp_path / "crops", crop_size=32, workers=1)
    build("hf://datasets/lab/images/plate", "hf://datasets/lab/images/crops", crop_size=32, workers=1)
    files = hub.repositories["dataset", "lab/images"].files
    shards = list((tmp_path / "crops").rglob("*.parquet"))
    assert shards
    for shard in shards:
        assert files[f"crops/{shard.relative_to(tmp_path / 'crops').as_posix()}"] == shard.read_bytes()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("hf://datasets/lab/other/embeddings.parquet", "lab/other"),
        ("hf://datasets/elsewhere/images/embeddings.parquet", "elsewhere/images"),
    ],
)
def test_a_repository_that_is_missing_gets_one_sentence(
    hub: Hub, local: Path, model: Path, output: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        embed(local, output=output, model=model, device="cpu")
    assert len(str(error.value).splitlines()) == 1


def test_a_repository_without_the_right_to_write_gets_one_sentence(
    hub: Hub, local: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuses = True
    with pytest.raises(UserError, match="lab/images") as error:
        embed(local, output="hf://datasets/lab/images/embeddings.parquet", model=model, device="cpu")
    assert len(str(error.value).splitlines()) == 1 and TOKEN not in str(error.value)
