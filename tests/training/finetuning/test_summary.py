"""What the terminal is told of a fine-tuning."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.training.finetuning.summary import describe, summarise


def test_a_figure_without_a_value_is_said() -> None:
    side = {"images": 3, "iou": None, "loss": 0.5}
    run = {"seed": 1, "chosen_by": "iou", "validation": side, "test": side}
    summary = summarise([run], how="cut")
    assert describe(summary, Path("run"), ("iou", "dice")) == "run: test iou has no value (1 seed, best 1; 3 images)"
