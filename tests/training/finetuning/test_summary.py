"""The summary of a fine-tuning on the terminal."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.training.finetuning.summary import describe, summarise


def test_an_undefined_metric_is_reported() -> None:
    metrics = {"images": 3, "iou": None, "loss": 0.5}
    run = {"seed": 1, "metric_for_best_model": "iou", "validation": metrics, "test": metrics}
    summary = summarise([run], split_description="cut")
    line = "run: test iou is undefined (1 seed, best seed 1; 3 images)"
    assert describe(summary, Path("run"), ("iou", "dice")) == line


def test_a_run_that_learned_nothing_gets_a_recommendation() -> None:
    runs = [
        {
            "seed": seed,
            "steps": 20,
            "best_step": 10,
            "metric_for_best_model": "iou",
            "validation": {"images": 3, "iou": iou},
        }
        for seed, iou in ((1, 0.0), (2, 0.4))
    ]
    lines = describe(summarise(runs, split_description="cut"), Path("run"), ("iou",)).splitlines()
    assert lines[0].startswith("run: validation iou 0.2000")
    assert lines[1:] == [
        "seed 1: nothing was learned (validation iou 0); train longer (--max-steps above 20), with another --output"
    ]
    assert len(describe(summarise(runs[1:], split_description="cut"), Path("run"), ("iou",)).splitlines()) == 1
    lossless = [run | {"metric_for_best_model": "loss", "validation": {"images": 3, "loss": 0.0}} for run in runs]
    assert len(describe(summarise(lossless, split_description="cut"), Path("run"), ("iou",)).splitlines()) == 1


def test_a_run_whose_first_evaluation_was_the_best_gets_a_recommendation() -> None:
    run = {
        "seed": 1,
        "steps": 5,
        "best_step": 1,
        "best_evaluation": 1,
        "evaluations": 5,
        "metric_for_best_model": "iou",
    }
    first = run | {"validation": {"images": 3, "iou": 0.03}}
    lines = describe(summarise([first], split_description="cut"), Path("run"), ("iou",)).splitlines()
    assert lines[1:] == [
        "seed 1: the first evaluation was the best (step 1); train longer or with a lower --learning-rate, "
        "and with another --output"
    ]
    for other in (first | {"best_evaluation": 2}, first | {"evaluations": 1}):
        assert len(describe(summarise([other], split_description="cut"), Path("run"), ("iou",)).splitlines()) == 1


def test_the_metric_of_every_class_is_printed_below_the_mean() -> None:
    run = {
        "seed": 1,
        "steps": 5,
        "metric_for_best_model": "iou",
        "training_images_per_class": {"rings": 3, "fibres": 2, "puncta": 1},
        "training_pixels_per_class": {"background": 50, "rings": 9, "fibres": 8, "puncta": 1},
        "validation": {"images": 3, "iou": 0.31, "iou_per_class": [0.9, 0.62, 0.0, None]},
    }
    lines = describe(summarise([run], split_description="cut"), Path("run"), ("iou", "dice")).splitlines()
    assert lines[1:] == ["iou of seed 1: rings 0.6200, fibres 0.0000, puncta undefined"]
