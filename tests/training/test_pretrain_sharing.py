"""Pretraining is the same however a step is shared: by one process, by accumulated batches, by several processes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from stedfm_hf.data.repository.files import find_split
from stedfm_hf.training.batches import EndlessBatches, MixedSplit
from stedfm_hf.training.preparation import Preparation
from tests.training.pretraining import as_stopped, assert_same_losses, launch, run, words_of, write_blobs

pytestmark = pytest.mark.filterwarnings("ignore:.*ranks reads", "ignore:.*each epoch drops")
TWELVE = "--max_steps 12 --eval-steps 8 --save_steps 8 --save_total_limit 3"


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="module")
def whole(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps of one process with eight crops at a time."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    run(crops, output, TWELVE)
    return output


@pytest.fixture(scope="module")
def shared(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two processes with four crops each."""
    output = tmp_path_factory.mktemp("runs") / "shared"
    assert "2 processes x 4 crops x 1 accumulation step" in launch(words_of(crops, output, TWELVE))
    return output


def test_accumulated_batches_give_the_same_losses(crops: Path, whole: Path, tmp_path: Path) -> None:
    run(crops, tmp_path / "run", f"{TWELVE} --per_device_train_batch_size 4")
    assert_same_losses(tmp_path / "run", whole)


def test_two_processes_give_the_same_losses(whole: Path, shared: Path) -> None:
    assert_same_losses(shared, whole)


@pytest.mark.slow
def test_what_one_process_began_two_go_on_with(crops: Path, whole: Path, tmp_path: Path) -> None:
    output = as_stopped(whole, tmp_path / "run", 8)
    said = launch(words_of(crops, output, TWELVE))
    assert "2 processes" in said and "step 10/12" in said and "step 8/12" not in said
    assert_same_losses(output, whole)


def test_what_two_processes_began_one_goes_on_with(
    crops: Path, whole: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = as_stopped(shared, tmp_path / "run", 8)
    run(crops, output, TWELVE)
    said = capsys.readouterr().err
    assert "1 process " in said and "step 10/12" in said and "step 8/12" not in said
    assert_same_losses(output, whole)


def test_no_two_masks_are_alike_and_each_is_that_of_its_sample_and_epoch(crops: Path) -> None:
    preparation = Preparation(seed=5, image_size=64, patches=64)

    def masks(size: int, rank: int, world_size: int) -> dict[tuple[int, int], torch.Tensor]:
        """What is hidden, by epoch and sample, in six steps: two epochs of 24 of the 30 crops."""
        sources = [MixedSplit(find_split(crops, "train"), size)]
        batches = EndlessBatches(sources, seed=5, rank=rank, world_size=world_size)
        found: dict[tuple[int, int], torch.Tensor] = {}
        for batch in islice(batches, 6):
            (part,) = batch["parts"]
            noise = preparation(part, epoch=part["epoch"])["noise"]
            hidden = noise.argsort(dim=1)[:, 16:].sort(dim=1).values
            found |= {(part["epoch"], int(index)): row for index, row in zip(part["index"], hidden, strict=True)}
        return found

    first, second = masks(4, 0, 2), masks(4, 1, 2)
    assert len(first) == len(second) == 24 and not first.keys() & second.keys()
    both = first | second
    # 64 over 16 is about 5e14: that two of 48 are alike by chance will not be seen.
    assert len({tuple(row.tolist()) for row in both.values()}) == 48
    seen_twice = {index for epoch, index in both if epoch == 0} & {index for epoch, index in both if epoch == 1}
    assert len(seen_twice) >= 18
    alone = masks(8, 0, 1)
    assert alone.keys() == both.keys() and all(torch.equal(alone[key], both[key]) for key in both)
