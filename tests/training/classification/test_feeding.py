"""Which samples are in which step, and what becomes of images of any size."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from stedfm_hf.evaluation.labelled import from_arrays
from stedfm_hf.runs import UserError
from stedfm_hf.training.classification.feeding import (
    Feed,
    Remembered,
    SharedBatches,
    TrainingImages,
    read_side,
    training_side,
)


def samples(count: int = 5, side: int = 8, **changes: Any) -> TrainingImages:
    images = [np.full((1, 20, 16), number / count, np.float32) for number in range(count)]
    settings: dict[str, Any] = {"side": side, "seed": 3, "augment": True, **changes}
    return TrainingImages(images, torch.arange(count), **settings)


def test_every_image_is_seen_once_in_an_epoch_and_in_another_order() -> None:
    fed = samples()
    epochs = [[int(fed[5 * epoch + place]["labels"]) for place in range(5)] for epoch in range(4)]
    assert all(sorted(each) == list(range(5)) for each in epochs) and len({tuple(each) for each in epochs}) > 1
    again = samples()
    assert [int(again[number]["labels"]) for number in range(20)] == sum(epochs, [])


@pytest.mark.parametrize(("batch_size", "accumulation", "world"), [(8, 1, 1), (4, 2, 1), (4, 1, 2), (2, 2, 2)])
def test_a_step_holds_the_same_samples_however_it_is_shared(batch_size: int, accumulation: int, world: int) -> None:
    ranks = [islice(SharedBatches(batch_size, accumulation, rank, world), 3 * accumulation) for rank in range(world)]
    taken = [list(each) for each in ranks]
    for step in range(3):
        mine = [batch for rank in taken for batch in rank[step * accumulation : (step + 1) * accumulation]]
        assert sorted(sum(mine, [])) == list(range(8 * step, 8 * step + 8))


def test_a_feed_goes_on_behind_a_step() -> None:
    def fed(step: int, count: int) -> list[torch.Tensor]:
        feed = Feed(samples(), batch_size=2, accumulation=2, rank=0, world_size=1)
        feed.step = step
        return [batch["keys"] for batch in islice(feed, count)]

    assert all(torch.equal(one, other) for one, other in zip(fed(0, 6)[4:], fed(2, 2), strict=True))


def test_feeding_leaves_the_random_numbers_of_the_program_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    next(iter(Feed(samples(), batch_size=2, accumulation=1, rank=0, world_size=1)))
    assert torch.equal(torch.rand(1), wanted)


def test_the_side_is_that_of_the_model_or_what_the_smallest_image_allows() -> None:
    images = [np.zeros((1, 70, 45), np.float32), np.zeros((1, 30, 90), np.float32)]
    assert training_side(images, ["a", "b"], image_size=16, patch_size=8) == 16
    assert training_side(images, ["a", "b"], image_size=64, patch_size=8) == 24
    with pytest.raises(UserError, match="b: 30 x 90 pixels are less than a patch"):
        training_side(images, ["a", "b"], image_size=64, patch_size=32)


def test_images_are_read_once_where_there_is_room() -> None:
    class Counted(list[np.ndarray]):
        reads = 0

        def __getitem__(self, number: Any) -> Any:
            self.reads += 1
            return super().__getitem__(number)

    images = Counted([np.zeros((1, 4, 4), np.float32)] * 3)
    known = Remembered(images, room=2 * 64)
    for number in (0, 1, 2, 0, 1, 2):
        assert known[number].shape == (1, 4, 4)
    assert images.reads == 4  # the third has no room


def test_what_cannot_be_read_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = from_arrays("d", [np.eye(8)] * 6, list("aabbbb"))
    real = type(data).stored

    def damaged(self: Any, number: int) -> Any:
        if self.places[number] in ("1", "4"):
            raise ValueError("the strip\nis cut off")
        return real(self, number)

    monkeypatch.setattr(type(data), "stored", damaged)
    side = read_side(data, channels=1)
    assert side.failed == {"1": "the strip is cut off", "4": "the strip is cut off"}
    assert side.data.places.tolist() == ["0", "2", "3", "5"] and len(side.images) == 4
    with pytest.raises(UserError, match="no image of a can be read"):
        read_side(data.take([1, 2, 3]), channels=1)
    with pytest.raises(UserError, match="0: has 1 channels, the model takes 2"):
        read_side(data, channels=2)
