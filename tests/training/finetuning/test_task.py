"""Lines of a fine-tuning about the images that it skips."""

from __future__ import annotations

from stedfm_hf.training.finetuning.task import describe_failed


def test_images_with_the_same_reason_share_a_line() -> None:
    planes = {f"stack.tif[{number}]": "its mask has 5 planes" for number in range(6)}
    assert describe_failed({"b.tif": "NaN", **planes}) == [
        "b.tif: skipped (NaN)",
        "stack.tif[0], stack.tif[1], stack.tif[2] and 3 more: skipped (its mask has 5 planes)",
    ]
