"""`stedfm pretrain generation` learns, resumes exactly, does not depend on how a step is shared, and is a pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline
from stedfm_hf.runs import UserError
from stedfm_hf.training.callbacks import TrainingDiverged
from stedfm_hf.training.checkpoints import checkpoint_folder
from tests.data.assembled import noisy_crop, write_repo
from tests.training.generation.generating import curve_of, parse, rows_of, run, words_of
from tests.training.pretraining import as_stopped, launch, write_blobs

pytestmark = pytest.mark.filterwarnings("ignore:.*ranks reads", "ignore:.*each epoch drops")
SCRIPT = "stedfm_hf/training/generate.py"


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops with classes."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    rows = [
        noisy_crop(
            number,
            pixels=rng.integers(0, 255, (64, 64)).astype(np.uint8),
            x=64 * (number % 2),
            label=("rings", "puncta")[number // 2 % 2],
        )
        for number in range(60)
    ]
    write_repo(folder, rows, rows_per_shard=8)
    return folder


@pytest.fixture(scope="module")
def whole(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    run(crops, output)
    return output


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "unet" / "diffusion_pytorch_model.safetensors")


def test_the_result_is_a_pipeline_with_the_averaged_weights(whole: Path) -> None:
    pipeline = StedFmGenerationPipeline.from_pretrained(whole)
    pipeline.set_progress_bar_config(disable=True)
    average = load_file(checkpoint_folder(whole, 8) / "average.safetensors")
    trained = load_file(checkpoint_folder(whole, 8) / "model.safetensors")
    saved = weights_of(whole)
    assert set(average) | {"condition_mean", "condition_std"} == set(saved)
    assert all(torch.equal(saved[name], value) for name, value in average.items())
    assert any(not torch.equal(saved[name], trained[f"unet.{name}"]) for name in average)
    assert not torch.equal(saved["condition_std"], torch.ones_like(saved["condition_std"]))
    image = np.zeros((64, 64), np.uint8)
    image[20:30, 20:30] = 200
    generator = torch.Generator().manual_seed(0)
    made = pipeline(images=image, num_inference_steps=2, generator=generator).images
    assert made.shape == (1, 64, 64) and made.dtype == np.float32 and 0 <= made.min() <= made.max() <= 1
    assert pipeline.config.value_range == [-1.0, 1.0] and pipeline.config.condition_dropout == 0.1
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_the_run_records_its_curve_sheets_and_card(whole: Path) -> None:
    rows = rows_of(whole)
    evaluated = [row for row in rows if row.held_out_loss is not None]
    assert [row.step for row in evaluated] == [0, 4, 8]
    for row in evaluated:
        assert row.constant_loss and row.frechet_embedding and row.frechet_embedding_real
        assert row.frechet_texture and row.frechet_texture_real
        assert row.frechet_embedding > row.frechet_embedding_real
    assert [row.step for row in rows if row.loss is not None] == [2, 4, 6, 8]
    assert sorted(path.name for path in (whole / "samples").glob("*.png")) == [
        f"step-{step:07d}.png" for step in (0, 4, 8)
    ]
    card = (whole / "README.md").read_text(encoding="utf-8")
    assert "Generated images are not measurements" in card and "samples/step-0000008.png" in card
    assert "Fréchet distance (embeddings of the encoder)" in card
    assert not list(whole.glob("*.bin"))
    record = json.loads((whole / "manifest.json").read_text(encoding="utf-8"))
    assert record["options"]["steps"] == 8


def test_a_stopped_run_resumes_exactly(crops: Path, whole: Path, tmp_path: Path) -> None:
    output = as_stopped(whole, tmp_path / "run", 4)
    run(crops, output)
    assert curve_of(output) == curve_of(whole)
    ours, theirs = weights_of(output), weights_of(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_accumulated_batches_give_the_same_losses(crops: Path, whole: Path, tmp_path: Path) -> None:
    run(crops, tmp_path / "run", "--per-device-train-batch-size 4 --evaluation-images 0")
    assert_same_losses(tmp_path / "run", whole)


@pytest.mark.slow
def test_two_processes_give_the_same_losses(crops: Path, whole: Path, tmp_path: Path) -> None:
    said = launch(words_of(crops, tmp_path / "run"), script=SCRIPT)
    assert "2 processes x 4 crops x 1 accumulation step" in said
    assert_same_losses(tmp_path / "run", whole)
    assert (tmp_path / "run" / "model_index.json").exists()


def assert_same_losses(output: Path, wanted: Path) -> None:
    """But for the order in which float32 sums are taken."""
    for row, other in zip(rows_of(output), rows_of(wanted), strict=True):
        assert (row.step, row.epoch, row.samples) == (other.step, other.epoch, other.samples)
        for loss, expected in ((row.loss, other.loss), (row.held_out_loss, other.held_out_loss)):
            assert loss == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_a_finished_run_is_not_repeated(crops: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert run(crops, whole).steps == 8
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}


def test_other_settings_are_refused(crops: Path, whole: Path) -> None:
    with pytest.raises(UserError, match="condition_dropout|condition-dropout"):
        run(crops, whole, "--condition-dropout 0.5")


def test_it_learns(crops: Path, tmp_path: Path) -> None:
    run(
        crops,
        tmp_path / "run",
        "--max-steps 30 --eval-steps 0 --save-steps 30 --logging-steps 10 --ema-decay 0.9 --learning-rate 5e-3",
    )
    losses = [row.loss for row in rows_of(tmp_path / "run")]
    assert losses[-1] is not None and losses[0] is not None and losses[-1] < 0.85 * losses[0]


def test_classes_are_a_condition(crops: Path, labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no classes"):
        run(crops, tmp_path / "other", "--condition class")
    run(labelled, tmp_path / "run", "--condition class --max-steps 4 --eval-steps 4")
    pipeline = StedFmGenerationPipeline.from_pretrained(tmp_path / "run")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.encoder is None and pipeline.unet.config.num_classes == len(pipeline.config.id2label)
    assert sorted(pipeline.config.id2label.values()) == ["puncta", "rings"]
    assert pipeline(class_labels=["rings", "puncta"], num_inference_steps=1).images.shape == (2, 64, 64)
    (row,) = [row for row in rows_of(tmp_path / "run") if row.step == 4 and row.held_out_loss is not None]
    assert row.frechet_texture and row.frechet_embedding is None


def test_the_reference_protocol(crops: Path, tmp_path: Path) -> None:
    words = "--recipe reference --image-size 64 --patch-size 8 --eval-steps 0 --save-steps 2 --max-steps 2"
    run(crops, tmp_path / "run", words)
    pipeline = StedFmGenerationPipeline.from_pretrained(tmp_path / "run")
    assert pipeline.config.value_range == [0.0, 1.0]
    assert (
        pipeline.scheduler.config.prediction_type == "epsilon" and pipeline.scheduler.config.beta_schedule == "linear"
    )
    assert not (checkpoint_folder(tmp_path / "run", 2) / "average.safetensors").exists()


def test_a_diverging_run_is_stopped(crops: Path, tmp_path: Path) -> None:
    words = "--learning-rate 1e30 --max-grad-norm 0 --eval-steps 0 --warmup-ratio 0 --logging-steps 1 --save-steps 1"
    with pytest.raises(TrainingDiverged, match="lower --learning-rate"):
        run(crops, tmp_path / "run", words)


def test_a_checkpoint_of_another_network_is_refused(crops: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    shutil.copytree(checkpoint_folder(whole, 4), checkpoint_folder(output, 4))
    with pytest.raises(UserError):
        run(crops, output, "--base-channels 16")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--image-size 60", "multiple of"),
        ("--image-size 128", "smaller than"),
        ("--image-size 62 --patch-size 2", "multiple of the patch size"),
        ("--validation-split train", "is the training split"),
        ("--train-split nowhere", "nowhere"),
        ("--model nowhere/", "nowhere"),
        ("--effective-batch-size 64", "fewer than"),
    ],
)
def test_what_does_not_fit_is_refused(words: str, message: str, crops: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(crops, tmp_path / "run", words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--condition-dropout 1", "below 1"),
        ("--channel-multipliers 0", "above 0"),
        ("--evaluation-images 1", "0, or 2 or more"),
        ("--ema-decay 1.5", "between 0 and 1"),
        ("--condition words", "unknown"),
        ("--logging-steps 3", "does not divide"),
    ],
)
def test_wrong_settings_are_refused(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        parse(words_of(Path("lab/crops"), tmp_path / "run", words))


def test_an_encoder_is_needed_for_embeddings(tmp_path: Path) -> None:
    words = ["--dataset", "lab/crops", "--output", str(tmp_path / "run")]
    with pytest.raises(UserError, match="--model is missing"):
        parse(words)
    assert parse([*words, "--condition", "class"]).model is None
