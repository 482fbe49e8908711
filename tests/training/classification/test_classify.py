"""Fine-tuning: a folder that loads, the same bits again and after any stop, and what cannot be trained is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

from stedfm_hf.data.splits import split_of
from stedfm_hf.labels.labelled import read_labelled
from stedfm_hf.runs import UserError, read_json
from stedfm_hf.training.finetuning.summary import METRICS_FILE, run_folder
from tests.training.classification.small_runs import SCRIPT, draw_image, run, words_of
from tests.training.finetuning.small import curve_of
from tests.training.launching import kill_at


def weights_of(output: Path, seed: int = 42) -> dict[str, torch.Tensor]:
    return load_file(run_folder(output, seed) / "model.safetensors")


def assert_same_run(output: Path, wanted: Path, seed: int = 42) -> None:
    """Weights and figures, bit for bit."""
    ours, theirs = weights_of(output, seed), weights_of(wanted, seed)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    first, second = (read_json(run_folder(folder, seed) / METRICS_FILE) for folder in (output, wanted))
    assert first == second


def test_the_folder_holds_the_best_model_and_loads(full: Path, crops: Path) -> None:
    model = AutoModelForImageClassification.from_pretrained(full)
    assert model.config.id2label == {0: "dots", 1: "rings"}
    metrics = read_json(full / METRICS_FILE)
    assert metrics["seeds"] == [42, 43] and len(metrics["runs"]) == 2
    figures = [each["validation"]["balanced_accuracy"] for each in metrics["runs"]]
    assert metrics["best_seed"] == metrics["seeds"][int(np.argmax(figures))]
    accuracies = [each["test"]["accuracy"] for each in metrics["runs"]]
    assert metrics["test"]["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert metrics["test"]["sd"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    for name in ("README.md", "recipe.yaml", "manifest.json", "curve.csv", "figures/confusion_matrix.png"):
        assert (full / name).exists(), name
    assert not list(full.glob("*/checkpoint-*")) and not list(full.rglob("*.bin"))
    best = run_folder(full, metrics["best_seed"]) / "model.safetensors"
    assert best.read_bytes() == (full / "model.safetensors").read_bytes()


def test_the_pipeline_gives_the_predictions_of_the_report(full: Path, crops: Path) -> None:
    classify = pipeline("stedfm-image-classification", model=str(full))
    test = read_labelled(crops)["test"]
    rows = pq.read_table(full / "predictions.parquet").to_pylist()
    rows = [row for row in rows if row["split"] == "test"]
    assert [row["image_id"] for row in rows] == test.image_ids.tolist() and len(rows) == len(test)
    for number in range(0, len(test), 5):
        found = {each["label"]: each["score"] for each in classify(test.stored(number))}
        for name in test.classes:
            assert found[name] == pytest.approx(rows[number][f"p_{name}"], abs=1e-5)
        assert rows[number]["prediction"] == max(found, key=lambda name: found[name])
    right = [row["label"] == row["prediction"] for row in rows]
    best = read_json(run_folder(full, read_json(full / METRICS_FILE)["best_seed"]) / METRICS_FILE)
    assert best["test"]["accuracy"] == pytest.approx(np.mean(right))


def test_a_seed_gives_the_same_bits_whatever_ran_before_it(
    full: Path, encoder: Path, crops: Path, tmp_path: Path
) -> None:
    torch.rand(3)
    run(encoder, crops, tmp_path / "again", "--mode full --seeds 43")
    assert_same_run(tmp_path / "again", full, 43)
    assert not torch.equal(weights_of(full, 42)["classifier.weight"], weights_of(full, 43)["classifier.weight"])


class Stopped(Exception):
    pass


@pytest.mark.parametrize("step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 10, 12))])
def test_a_stopped_run_ends_as_the_uninterrupted_one_to_the_bit(
    full: Path, encoder: Path, crops: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
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
            run(encoder, crops, tmp_path / "run", "--mode full")
    run(encoder, crops, tmp_path / "run", "--mode full")
    assert_same_run(tmp_path / "run", full)
    rows, wanted = (
        [(row.step, row.loss, row.validation_loss) for row in curve_of(output)] for output in (tmp_path / "run", full)
    )
    assert rows == wanted


def test_a_run_that_was_stopped_after_its_last_step_is_only_finished(
    full: Path, encoder: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedfm_hf.training import classify

    with monkeypatch.context() as patch:
        patch.setattr(classify.ClassificationTask, "evaluate", lambda *_, **__: (_ for _ in ()).throw(Stopped()))
        with pytest.raises(Stopped):
            run(encoder, crops, tmp_path / "run", "--mode full")
    run(encoder, crops, tmp_path / "run", "--mode full")
    assert_same_run(tmp_path / "run", full)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_metrics(full: Path, encoder: Path, crops: Path, tmp_path: Path) -> None:
    kill_at(SCRIPT, words_of(encoder, crops, tmp_path / "run", "--mode full"), "stedfm: step 6/12  validation")
    assert not (run_folder(tmp_path / "run", 42) / METRICS_FILE).exists()
    result = run(encoder, crops, tmp_path / "run", "--mode full")
    assert_same_run(tmp_path / "run", full)
    assert not result.manifest.failures()


def test_more_seeds_join_those_that_are_finished(full: Path, encoder: Path, crops: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(encoder, crops, output, "--mode full --seeds 42")
    before = (run_folder(output, 42) / "model.safetensors").stat().st_mtime_ns
    result = run(encoder, crops, output, "--mode full --seeds 42 43")
    assert (run_folder(output, 42) / "model.safetensors").stat().st_mtime_ns == before
    assert result.metrics == read_json(full / METRICS_FILE)
    assert "± " in result.summary() and "2 seeds" in result.summary()


def test_a_run_is_not_mixed_with_another(full: Path, encoder: Path, crops: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mode: 'full' before, 'linear-probe' now"):
        run(encoder, crops, full, "--seeds 42 43")
    (tmp_path / "other.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        run(encoder, crops, tmp_path)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--labels_per_class 500", r"cannot sample 500 images per class, because dots has \d+"),
        ("--target nothing", "has no column or metadata 'nothing'"),
        ("--train_split trian", "no split 'trian'"),
        ("--test_split tset", "no split 'tset'"),
        ("--metric-for-best-model r2", "--metric-for-best-model r2: not a metric of this task"),
        ("--mode last-blocks --blocks 7", "--blocks 7: .* has only 2 blocks"),
        ("--model nowhere", "model nowhere: no such folder"),
    ],
)
def test_unusable_input_is_refused(encoder: Path, crops: Path, tmp_path: Path, words: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        run(encoder, crops, tmp_path / "run", words)
    assert not (tmp_path / "run" / METRICS_FILE).exists()


def test_few_labels_get_as_many_steps_as_many(encoder: Path, crops: Path, tmp_path: Path) -> None:
    words = "--max_steps -1 --num_train_epochs 2 --num-evaluations 2"
    run(encoder, crops, tmp_path / "all", words)
    run(encoder, crops, tmp_path / "few", f"{words} --labels_per_class 3")
    whole, few = (read_json(tmp_path / name / METRICS_FILE)["runs"][0] for name in ("all", "few"))
    assert few["training_images"] == 6 and few["training_images_per_class"] == {"dots": 3, "rings": 3}
    assert whole["images_seen"] == few["images_seen"] == 8 * round(2 * whole["training_images"] / 8)


def test_a_number_is_predicted_in_its_unit(encoder: Path, crops: Path, tmp_path: Path) -> None:
    result = run(encoder, crops, tmp_path / "run", "--target size --mode full --max_steps 40")
    assert result.metrics["metric_for_best_model"] == "r2" and {"pearson_r", "r2", "mae"} <= set(
        result.metrics["test"]["mean"]
    )
    rows = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    assert np.mean([row["prediction"] for row in rows]) == pytest.approx(5.5, abs=1.0)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert model.config.target_type == "regression" and model.config.num_labels == 1
    classify = pipeline("stedfm-image-classification", model=str(tmp_path / "run"))
    (found,) = classify(read_labelled(crops, target="size")["test"].stored(0))
    test = [row for row in rows if row["split"] == "test"]
    assert found["score"] == pytest.approx(test[0]["prediction"], rel=1e-4)


def test_multilabel_targets(encoder: Path, crops: Path, tmp_path: Path) -> None:
    result = run(
        encoder, crops, tmp_path / "run", "--target parts --mode last-blocks --blocks 1 --class_weights balanced"
    )
    assert (
        result.metrics["metric_for_best_model"] == "macro_f1"
        and "mean_average_precision" in result.metrics["test"]["mean"]
    )
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert model.config.target_type == "multi_label" and set(model.config.id2label.values()) == {
        "dots",
        "large",
        "rings",
    }


def test_adapters_are_merged_into_an_ordinary_model(encoder: Path, crops: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run(encoder, crops, tmp_path / "run", "--mode lora --lora_rank 2")
    ours, before = weights_of(tmp_path / "run"), load_file(encoder / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in ours)
    changed = {name for name in before if name in ours and not torch.equal(ours[name], before[name])}
    assert changed and all(name.endswith(("qkv.weight", "out_proj.weight")) for name in changed)


def test_without_peft_the_message_tells_how_to_install_it(
    encoder: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedfm_hf.training import checks

    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--mode lora: peft is not installed; pip install 'stedfm-hf\[peft\]'"):
        run(encoder, crops, tmp_path / "run", "--mode lora")


def test_from_scratch_uses_only_the_architecture_of_the_model(encoder: Path, crops: Path, tmp_path: Path) -> None:
    run(encoder, crops, tmp_path / "run", "--mode from-scratch --learning_rate 1e-9")
    ours, before = weights_of(tmp_path / "run"), load_file(encoder / "model.safetensors")
    name = "stedfm.encoder.layers.0.attention.qkv.weight"
    assert ours[name].shape == before[name].shape and not torch.allclose(ours[name], before[name], atol=1e-2)


def test_a_folder_of_images_with_a_damaged_one(encoder: Path, tmp_path: Path) -> None:
    for kind in ("ring", "rings"):  # one name is a part of the other
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(10):
            image = draw_image("rings" if kind == "rings" else "dots", 6.0, number)
            tifffile.imwrite(tmp_path / "images" / kind / f"cell_{number}.tif", image)
    (tmp_path / "images" / "ring" / "cell_5.tif").write_bytes(b"II*\0 damaged")
    result = run(encoder, tmp_path / "images", tmp_path / "run", "--mode full")
    assert list(result.manifest.failures()) == ["ring/cell_5.tif"]
    metrics = read_json(tmp_path / "run" / METRICS_FILE)
    rows = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pandas()
    assert set(rows["label"]) <= {"ring", "rings"} and metrics["runs"][0]["training_images"] + len(rows) == 19
    assert "a hash of the id of each source image decides its split" in metrics["split_description"]
    assert "a hash of the id of each source image decides" in (tmp_path / "run" / "README.md").read_text(
        encoding="utf-8"
    )


def test_images_that_all_fall_into_train_and_validation_are_reported(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    for kind in ("rings", "dots"):
        (folder / kind).mkdir(parents=True)
        for number in range(12):
            tifffile.imwrite(folder / kind / f"cell_{number}.tif", draw_image(kind, 6.0, number))
    for each in read_labelled(folder).values():
        for image, source in zip(each.image_ids.tolist(), each.sources.tolist(), strict=True):
            if split_of(source) == "test":
                (folder / image).unlink()
    result = run(encoder, folder, tmp_path / "run")
    assert "test" not in result.metrics and "validation" in result.metrics
    assert "stedfm: warning: images: there is no test image" in capsys.readouterr().err


def test_it_stops_early_and_stays_stopped(
    encoder: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedfm_hf.training import classify

    # Weights that do not move: no evaluation is better than the first by more than rounding.
    words = "--max_steps 40 --num-evaluations 20 --early_stopping_patience 2 --learning_rate 1e-12"
    (whole,) = run(encoder, crops, tmp_path / "whole", words).metrics["runs"]
    assert whole["steps"] < 40 and whole["best_step"] == whole["steps"] - 4
    with monkeypatch.context() as patch:
        patch.setattr(classify.ClassificationTask, "evaluate", lambda *_, **__: (_ for _ in ()).throw(Stopped()))
        with pytest.raises(Stopped):
            run(encoder, crops, tmp_path / "run", words)
    run(encoder, crops, tmp_path / "run", words)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
