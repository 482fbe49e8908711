"""What a fine-tuning says of images that it leaves out."""

from __future__ import annotations

from stedfm_hf.training.finetuning.task import describe_failed


def test_a_reason_is_given_once_for_all_images_that_have_it() -> None:
    planes = {f"stack.tif[{number}]": "its mask has 5 planes" for number in range(6)}
    assert describe_failed({"b.tif": "NaN", **planes}) == [
        "b.tif: is left out (NaN)",
        "stack.tif[0], stack.tif[1], stack.tif[2] and 3 more: are left out (its mask has 5 planes)",
    ]
