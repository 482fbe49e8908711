"""Samples of labelled images, and what becomes of those that cannot be read."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from stedfm_hf.labels.labelled import LabelledImages, from_arrays
from stedfm_hf.runs import UserError
from stedfm_hf.training.classification.data import TrainingImages, cache_images
from stedfm_hf.training.classification.trainer import LabelledSplit
from stedfm_hf.training.finetuning.data import Batches, load_images


def arguments() -> TrainingArguments:
    return TrainingArguments(
        output_dir="run", use_cpu=True, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )


def load(data: LabelledImages, channels: int = 1) -> LabelledSplit:
    return load_images(data, cache_images, channels=channels, channels_of=len)


def samples(count: int = 5, size: int = 8, **changes: Any) -> TrainingImages:
    images = [np.full((1, 20, 16), number / count, np.float32) for number in range(count)]
    settings: dict[str, Any] = {"size": size, "seed": 3, "augment": True, **changes}
    return TrainingImages(images, torch.arange(count), **settings)


def test_every_image_is_seen_once_in_an_epoch_and_in_another_order() -> None:
    fed = samples()
    epochs = [[int(fed[5 * epoch + place]["labels"]) for place in range(5)] for epoch in range(4)]
    assert all(sorted(each) == list(range(5)) for each in epochs) and len({tuple(each) for each in epochs}) > 1
    again = samples()
    assert [int(again[number]["labels"]) for number in range(20)] == sum(epochs, [])


def test_batches_resume_after_a_step() -> None:
    def fed(step: int, count: int) -> list[torch.Tensor]:
        feed = Batches(samples(), arguments())
        feed.step = step
        return [batch["keys"] for batch in islice(feed, count)]

    assert all(torch.equal(one, other) for one, other in zip(fed(0, 6)[4:], fed(2, 2), strict=True))


def test_loading_does_not_change_the_global_random_numbers() -> None:
    given = arguments()
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    next(iter(Batches(samples(), given)))
    assert torch.equal(torch.rand(1), wanted)


def test_unreadable_images_are_skipped_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    data = from_arrays("d", [np.eye(8)] * 6, list("aabbbb"))
    real = type(data).stored

    def damaged(self: Any, number: int) -> Any:
        if self.image_ids[number] in ("1", "4"):
            raise ValueError("the strip\nis cut off")
        return real(self, number)

    monkeypatch.setattr(type(data), "stored", damaged)
    side = load(data)
    assert side.failed == {"1": "the strip is cut off", "4": "the strip is cut off"}
    assert side.data.image_ids.tolist() == ["0", "2", "3", "5"] and len(side.items) == 4
    with pytest.raises(UserError, match="no image of a can be read"):
        load(data.take([1, 2, 3]))
    with pytest.raises(UserError, match="0: has 1 channels, but the model expects 2"):
        load(data, 2)
