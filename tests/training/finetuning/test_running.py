"""What a fine-tuning says of images that it leaves out."""

from __future__ import annotations

from stedfm_hf.training.finetuning.running import leave_out


def test_a_reason_is_said_once_for_all_images_that_have_it() -> None:
    said: list[str] = []
    failed = {"old.tif": "damaged"}
    planes = {f"stack.tif[{number}]": "its mask has 5 planes" for number in range(6)}
    leave_out({"old.tif": "damaged", "b.tif": "NaN", **planes}, failed, said.append)
    assert said == [
        "b.tif: is left out (NaN)",
        "stack.tif[0], stack.tif[1], stack.tif[2] and 3 more: are left out (its mask has 5 planes)",
    ]
    assert set(failed) == {"old.tif", "b.tif", *planes}
