"""What the terminal is told of a fine-tuning."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.training.finetuning.summary import describe, summarise


def test_a_figure_without_a_value_is_said() -> None:
    side = {"images": 3, "iou": None, "loss": 0.5}
    run = {"seed": 1, "chosen_by": "iou", "validation": side, "test": side}
    summary = summarise([run], how="cut")
    assert describe(summary, Path("run"), ("iou", "dice")) == "run: test iou has no value (1 seed, best 1; 3 images)"


def test_a_run_that_came_to_nothing_is_told_what_to_do() -> None:
    runs = [
        {"seed": seed, "steps": 20, "best_step": 10, "chosen_by": "iou", "validation": {"images": 3, "iou": iou}}
        for seed, iou in ((1, 0.0), (2, 0.4))
    ]
    said = describe(summarise(runs, how="cut"), Path("run"), ("iou",)).splitlines()
    assert said[0].startswith("run: validation iou 0.2000")
    assert said[1:] == [
        "seed 1: nothing is learned yet (validation iou 0); train longer, into another --output (--max-steps, here 20)"
    ]
    assert len(describe(summarise(runs[1:], how="cut"), Path("run"), ("iou",)).splitlines()) == 1
    lossless = [run | {"chosen_by": "loss", "validation": {"images": 3, "loss": 0.0}} for run in runs]
    assert len(describe(summarise(lossless, how="cut"), Path("run"), ("iou",)).splitlines()) == 1


def test_a_run_whose_first_check_was_the_best_is_said() -> None:
    run = {"seed": 1, "steps": 5, "best_step": 1, "best_evaluation": 1, "evaluations": 5, "chosen_by": "iou"}
    first = run | {"validation": {"images": 3, "iou": 0.03}}
    said = describe(summarise([first], how="cut"), Path("run"), ("iou",)).splitlines()
    assert said[1:] == [
        "seed 1: no evaluation was better than the first (step 1); train longer, into another --output, or with a "
        "lower --learning-rate"
    ]
    for other in (first | {"best_evaluation": 2}, first | {"evaluations": 1}):
        assert len(describe(summarise([other], how="cut"), Path("run"), ("iou",)).splitlines()) == 1


def test_every_class_has_its_figure_beside_the_mean() -> None:
    run = {
        "seed": 1,
        "steps": 5,
        "chosen_by": "iou",
        "training_images_per_class": {"rings": 3, "fibres": 2, "puncta": 1},
        "training_pixels_per_class": {"background": 50, "rings": 9, "fibres": 8, "puncta": 1},
        "validation": {"images": 3, "iou": 0.31, "iou_per_class": [0.9, 0.62, 0.0, None]},
    }
    said = describe(summarise([run], how="cut"), Path("run"), ("iou", "dice")).splitlines()
    assert said[1:] == ["iou of seed 1: rings 0.6200, fibres 0.0000, puncta without a value"]
