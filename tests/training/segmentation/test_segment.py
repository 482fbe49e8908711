"""Fine-tuning for segmentation: a folder that loads, the same after any stop, and what cannot be trained is said."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSemanticSegmentation, pipeline

from stedfm_hf.labels.annotated import read_annotated
from stedfm_hf.modeling.blending_stedfm import segment_image
from stedfm_hf.runs import UserError, read_json
from stedfm_hf.training.finetuning.summary import METRICS_FILE, run_folder
from stedfm_hf.training.segmentation.data import cache_images
from stedfm_hf.training.segmentation.trainer import score
from tests.training.finetuning.small import curve_of
from tests.training.launching import kill_at, launch
from tests.training.segmentation.small_segmentations import SCRIPT, draw_scene, run, words_of, write_scenes


def assert_same_run(output: Path, wanted: Path, seed: int = 42) -> None:
    """Weights and figures, bit for bit."""
    ours, theirs = (load_file(run_folder(each, seed) / "model.safetensors") for each in (output, wanted))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    first, second = (read_json(run_folder(folder, seed) / METRICS_FILE) for folder in (output, wanted))
    assert first == second


def test_the_folder_holds_the_best_model_and_its_maps_have_the_reported_metrics(full: Path, scenes: Path) -> None:
    model = AutoModelForSemanticSegmentation.from_pretrained(full)
    assert model.config.id2label == {0: "background", 1: "class 1", 2: "class 2"}
    metrics = read_json(full / METRICS_FILE)
    assert metrics["seeds"] == [42, 43] and metrics["metric_for_best_model"] == "iou"
    # What is bright is found by the better seed, if not which of the two it is.
    assert metrics["best_seed"] == 42 and metrics["runs"][0]["validation"]["iou"] > 0.2
    for name in ("README.md", "recipe.yaml", "manifest.json", "curve.csv", "figures/examples.png"):
        assert (full / name).exists(), name
    assert list((full / "figures" / "evaluations").glob("step-*.png")) and not list(full.glob("*/checkpoint-*"))
    segment = pipeline("stedfm-segmentation", model=str(full))
    test = read_annotated(scenes)["test"]
    rows = pq.read_table(full / "per_image.parquet").to_pylist()
    for number in range(len(test)):
        found = {each["label"]: np.asarray(each["mask"]) > 0 for each in segment(test.stored(number))}
        for place, name in enumerate(test.classes):
            mask, truth = found.get(name, np.zeros((40, 48), bool)), test.target(number) == place
            iou = (mask & truth).sum() / (mask | truth).sum()
            (row,) = (row for row in rows if row["image_id"] == test.image_ids[number] and row["class"] == name)
            assert row["split"] == "test" and row["iou"] == pytest.approx(iou)


class Stopped(Exception):
    pass


SIX = "--decoder upernet --max_steps 6 --num-evaluations 3"


@pytest.fixture(scope="module")
def uninterrupted(encoder: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with batch norms."""
    output = tmp_path_factory.mktemp("runs") / "uninterrupted"
    run(encoder, scenes, output, SIX)
    return output


@pytest.mark.parametrize("step", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_a_stopped_run_ends_as_the_uninterrupted_one_to_the_bit(
    encoder: Path, scenes: Path, uninterrupted: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedfm_hf.training.finetuning import trainer

    with monkeypatch.context() as patch:
        real = trainer.FinetuneMonitorCallback.on_step_end

        def stop(self: Any, args: Any, state: Any, *rest: Any, **more: Any) -> None:
            if state.global_step == step:
                raise Stopped
            real(self, args, state, *rest, **more)

        patch.setattr(trainer.FinetuneMonitorCallback, "on_step_end", stop)
        with pytest.raises(Stopped):
            run(encoder, scenes, tmp_path / "run", SIX)
    run(encoder, scenes, tmp_path / "run", SIX)
    assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_metrics(
    encoder: Path, scenes: Path, uninterrupted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kill_at(SCRIPT, words_of(encoder, scenes, tmp_path / "run", SIX), "stedfm: step 4/6  validation")
    assert not (run_folder(tmp_path / "run", 42) / METRICS_FILE).exists()
    run(encoder, scenes, tmp_path / "run", SIX)
    assert_same_run(tmp_path / "run", uninterrupted)
    assert "resuming after step" in capfd.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_losses_of_two_accumulated_batches(encoder: Path, scenes: Path, tmp_path: Path) -> None:
    # With a frozen encoder, several classes at once and an auxiliary head: no parameter may be without a gradient.
    words = "--mode frozen --auxiliary --max_steps 4 --num-evaluations 2 --segmentation_loss mse"
    run(encoder, scenes, tmp_path / "one", f"{words} --per_device_train_batch_size 2")
    said = launch(SCRIPT, words_of(encoder, scenes, tmp_path / "two", words))
    assert "2 processes x 2 crops x 1 accumulation step" in said and said.count("test iou") == 1
    for row, other in zip(curve_of(tmp_path / "two"), curve_of(tmp_path / "one"), strict=True):
        assert (row.step, row.epoch, row.samples) == (other.step, other.epoch, other.samples)
        for loss, expected in ((row.loss, other.loss), (row.validation_loss, other.validation_loss)):
            assert loss == (None if expected is None else pytest.approx(expected, rel=1e-4))


@pytest.mark.slow
def test_metrics_of_two_processes_are_those_of_the_saved_batch_norms(
    encoder: Path, scenes: Path, tmp_path: Path
) -> None:
    words = "--decoder unetr --max_steps 4 --num-evaluations 1 --learning_rate 1e-2"
    launch(SCRIPT, words_of(encoder, scenes, tmp_path / "run", words))
    saved = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run").eval()
    data = read_annotated(scenes)["validation"]
    losses = [
        score(segment_image(saved, item.image), item, data, saved, areas=False).loss for item in cache_images(data)
    ]
    figures = read_json(tmp_path / "run" / METRICS_FILE)["validation"]["mean"]
    assert figures["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("words", ["--mode frozen --decoder linear", "--mode last-blocks --blocks 1", "--mode lora"])
def test_trained_weights(encoder: Path, scenes: Path, tmp_path: Path, words: str) -> None:
    if "lora" in words:
        pytest.importorskip("peft")
    run(encoder, scenes, tmp_path / "run", f"{words} --max_steps 2 --num-evaluations 1")
    ours, before = load_file(tmp_path / "run" / "model.safetensors"), load_file(encoder / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in ours)
    changed = {name for name in ours if name in before and not torch.equal(ours[name], before[name])}
    moved = {"frozen": (), "last-blocks": ("stedfm.encoder.layers.1.", "stedfm.norm."), "lora": ("stedfm.encoder",)}
    allowed = moved[words.split()[1]]
    assert bool(changed) == bool(allowed) and all(name.startswith(allowed) for name in changed)


@pytest.mark.parametrize("mode", ["from-scratch", "untrained"])
def test_a_new_encoder_has_only_the_architecture_of_the_model(
    encoder: Path, scenes: Path, tmp_path: Path, mode: str
) -> None:
    run(encoder, scenes, tmp_path / "run", f"--mode {mode} --max_steps 2 --num-evaluations 1 --learning_rate 1e-9")
    ours, before = load_file(tmp_path / "run" / "model.safetensors"), load_file(encoder / "model.safetensors")
    name = "stedfm.encoder.layers.0.attention.qkv.weight"
    assert ours[name].shape == before[name].shape and not torch.allclose(ours[name], before[name], atol=1e-2)


def test_overlapping_classes_with_names(encoder: Path, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", planes=True)
    words = "--classes squares bright --protocol reference --metric-for-best-model dice"
    result = run(encoder, data, tmp_path / "run", words)
    assert (
        result.metrics["metric_for_best_model"] == "dice"
        and len(result.metrics["runs"][0]["test"]["iou_per_class"]) == 2
    )
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run")
    assert model.config.target_type == "multi_label" and model.config.id2label == {0: "squares", 1: "bright"}


def test_few_images_get_as_many_steps_as_many_and_large_ones_several_crops(encoder: Path, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", shape=(32, 96))  # three crops of 32 pixels each
    words = "--max_steps -1 --num_train_epochs 2 --num-evaluations 1"
    whole = run(encoder, data, tmp_path / "all", words).metrics["runs"][0]
    few = run(encoder, data, tmp_path / "few", f"{words} --label_count 2").metrics["runs"][0]
    assert whole["images_seen"] == few["images_seen"] == 2 * 3 * 10 and few["training_images"] == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--label_count 50", "--label-count 50 is more than the 10 training images"),
        ("--min_annotated 0.9", "none of 10 training images has a crop with 90 % annotated pixels"),
        ("--classes squares", r"the mask of .* contains 2, but the classes are 0 background, 1 squares"),
        ("--train_split trian", "no split 'trian'"),
        ("--metric-for-best-model accuracy", "--metric-for-best-model accuracy: not a metric of this task"),
        (
            "--segmentation_loss bce_dice",
            "segmentation_loss 'bce_dice' is one of multi_label and soft targets, not of single_label ones",
        ),
        ("--mode last-blocks --blocks 7", "--blocks 7: .* has only 2 blocks"),
        ("--model nowhere", "model nowhere: no such folder"),
    ],
)
def test_unusable_input_is_refused(encoder: Path, scenes: Path, tmp_path: Path, words: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        run(encoder, scenes, tmp_path / "run", words)
    assert not (tmp_path / "run" / METRICS_FILE).exists()


def test_damaged_input_is_reported_and_skipped(encoder: Path, scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    (data / "images" / "train" / "cell_3.tif").write_bytes(b"II*\0 damaged")
    tifffile.imwrite(data / "masks" / "train" / "cell_4.tif", np.zeros((5, 5), np.uint8))
    holed = draw_scene(5)[0].astype(np.float32)
    holed[3:6, 3:6] = np.nan
    tifffile.imwrite(data / "images" / "train" / "cell_5.tif", holed)
    result = run(encoder, data, tmp_path / "run", "--max_steps 2 --num-evaluations 1")
    assert (
        len(result.manifest.failures()) == 2
        and "cell_3.tif" in " ".join(result.manifest.failures())
        and "cell_4.tif" in " ".join(result.manifest.failures())
    )
    assert result.metrics["runs"][0]["training_images"] == 8 and np.isfinite(result.metrics["test"]["mean"]["loss"])


def test_a_class_without_training_pixels_is_refused(encoder: Path, scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    for path in (data / "masks" / "train").iterdir():
        tifffile.imwrite(path, np.minimum(tifffile.imread(path), 1), photometric="minisblack")
    with pytest.raises(UserError, match="the training images have no pixel of class 2, but other splits have"):
        run(encoder, data, tmp_path / "run")


def test_masks_without_zero_ask_which_number_is_the_background(encoder: Path, scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    for path in (data / "masks").rglob("*.tif"):
        tifffile.imwrite(path, np.minimum(tifffile.imread(path), 1) + np.uint8(1), photometric="minisblack")
    with pytest.raises(UserError, match="1=background 2=NAME"):
        run(encoder, data, tmp_path / "run")


def test_splits_without_any_class(encoder: Path, scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    for path in [*(data / "masks" / "validation").iterdir(), *(data / "masks" / "test").iterdir()]:
        tifffile.imwrite(path, np.zeros_like(tifffile.imread(path)), photometric="minisblack")
    with pytest.raises(
        UserError, match="the validation images have no pixel of any class, so iou cannot select the best model"
    ):
        run(encoder, data, tmp_path / "run")
    # Nothing is marked, hence no image has an overlap: the run ends, and says so.
    words = "--metric-for-best-model loss --max_steps 30 --num-evaluations 1 --learning_rate 1e-2 --decoder linear"
    result = run(encoder, data, tmp_path / "run", words)
    assert result.metrics["runs"][0]["test"]["iou"] is None and "iou" not in result.metrics["test"]["mean"]
    assert not (tmp_path / "run" / "figures" / "examples.png").exists()
    assert "| undefined |" in (tmp_path / "run" / "README.md").read_text()


def test_a_batch_of_one(encoder: Path, scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    for kind, split in itertools.product(("images", "masks"), ("validation", "test")):
        for path in sorted((data / kind / split).iterdir())[1:]:
            path.unlink()
    for decoder in ("upernet", "unetr", "linear"):
        words = f"--decoder {decoder} --effective_batch_size 1 --label_count 1 --max_steps 2 --num-evaluations 1"
        assert run(encoder, data, tmp_path / decoder, words).metrics["seeds"] == [42]
