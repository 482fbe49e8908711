"""`evaluate weights` on tiny models: which tensors are compared, and the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from stedfm_hf import StedFmForImageClassification, StedFmForPreTraining, StedFmModel
from stedfm_hf.cli import main
from stedfm_hf.evaluation import evaluate_weights
from stedfm_hf.evaluation.results import WeightsResult
from stedfm_hf.metrics.weight_distances import cosine_distance, wasserstein_distance
from stedfm_hf.runs import UserError
from tests.models import tiny_config


def save(folder: Path, seed: int = 0, model_class: type[Any] = StedFmModel, **changes: Any) -> str:
    """Save a tiny model with random weights."""
    torch.manual_seed(seed)
    model_class(tiny_config(**changes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="module")
def classifier(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The encoder with a head; the weights of one layer are permuted, those of another are zeros."""
    folder = tmp_path_factory.mktemp("models") / "classifier"
    model = StedFmForImageClassification(tiny_config(num_labels=3))
    model.stedfm.load_state_dict(StedFmModel.from_pretrained(encoder).state_dict())
    first: Any = model.stedfm.encoder.layers[0]
    with torch.no_grad():
        first.mlp.fc1.weight.copy_(first.mlp.fc1.weight.flip(0, 1))
        first.mlp.fc2.weight.zero_()
    model.save_pretrained(folder)
    return str(folder)


def rows_of(result: WeightsResult, first: str, second: str) -> dict[str, dict[str, Any]]:
    """The rows of the table of a pair, by tensor."""
    rows = pq.read_table(result.output / "distances.parquet").to_pylist()
    return {row["tensor"]: row for row in rows if (row["first"], row["second"]) == (first, second)}


def test_the_encoder_of_a_classifier_is_compared_and_its_head_is_left_out(
    encoder: str, classifier: str, tmp_path: Path
) -> None:
    result = evaluate_weights([encoder, classifier], tmp_path / "out")
    rows = rows_of(result, encoder, classifier)
    stored = load_file(Path(encoder) / "model.safetensors")
    assert {name for name, row in rows.items() if row["reason"] is None} == set(stored)
    assert {row["reason"] for row in rows.values() if row["tensor"].startswith("classifier.")} == {
        "part of a head or decoder"
    }
    permuted, zeros = rows["encoder.layers.0.mlp.fc1.weight"], rows["encoder.layers.0.mlp.fc2.weight"]
    assert permuted["wasserstein"] == 0, "values without their positions"
    assert permuted["cosine"] > 0.5
    assert zeros["cosine"] == 1
    assert zeros["wasserstein"] == pytest.approx(
        stored["encoder.layers.0.mlp.fc2.weight"].abs().double().mean().item()
    )
    others = [row for name, row in rows.items() if "0.mlp.fc" not in name and row["reason"] is None]
    assert max(row["cosine"] + row["wasserstein"] for row in others) == 0
    assert permuted["layer"] == "0"
    assert permuted["values"] == stored["encoder.layers.0.mlp.fc1.weight"].numel()


def test_distances_to_the_untrained_network_and_the_report(encoder: str, classifier: str, tmp_path: Path) -> None:
    result = evaluate_weights([encoder, classifier], tmp_path / "out", seed=3)
    torch.manual_seed(3)
    untrained = dict(StedFmModel(tiny_config()).named_parameters())
    for name, row in rows_of(result, encoder, "untrained").items():
        first = load_file(Path(encoder) / "model.safetensors")[name].flatten().numpy()
        second = untrained[name].detach().flatten().numpy()
        assert row["wasserstein"] == pytest.approx(wasserstein_distance(first, second), abs=1e-9)
        assert row["cosine"] == pytest.approx(cosine_distance(first, second), abs=1e-9)
    pairs = {(each["first"], each["second"]): each for each in result.record["pairs"]}
    assert set(pairs) == {
        ("encoder", "classifier"),
        ("encoder", "Untrained network"),
        ("classifier", "Untrained network"),
    }
    table = [row for row in rows_of(result, encoder, "untrained").values() if row["reason"] is None]
    found = pairs["encoder", "Untrained network"]
    assert found["cosine"]["mean"] == pytest.approx(np.mean([row["cosine"] for row in table]))
    assert found["cosine"]["area_below_curve"] == pytest.approx(1 - np.mean([min(row["cosine"], 1) for row in table]))
    assert found["tensors"] == len(table)
    page = (result.output / "report.html").read_text("utf-8")
    assert "It ignores positions" in page
    assert "have a mean Wasserstein distance of" in page
    assert "part of a head or decoder" in page
    for name in ("layers.png", "layers.svg", "curves.png", "curves.svg"):
        assert (result.output / "figures" / name).exists()
    assert result.exit_status == 0
    assert "Untrained network" in result.summary()
    assert evaluate_weights([encoder, classifier], tmp_path / "out", seed=3).record == result.record
    with pytest.raises(UserError, match="made with other settings"):
        evaluate_weights([encoder, classifier], tmp_path / "out", seed=4)


def test_the_command_line_prints_the_pairs(encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "weights", "--model", encoder, "demo", "--baselines", "none", "--output", str(tmp_path / "o")]
    assert main(words) == 2
    assert "no tensor of the same name and shape" in capsys.readouterr().err
    other = save(tmp_path / "other", seed=1, model_class=StedFmForPreTraining)
    words[4] = other
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"][0]["tensors"] > 10
    assert main([*words[:5], "demo", *words[5:], "--overwrite"]) == 1
    assert "demo (packaged): not compared, no tensor has the same name and shape" in capsys.readouterr().out


def test_different_shapes_missing_tensors_and_values_that_are_not_finite_are_listed(
    encoder: str, tmp_path: Path
) -> None:
    deeper = save(tmp_path / "deeper", num_channels=3, num_hidden_layers=3)
    path = Path(deeper) / "model.safetensors"
    weights = load_file(path)
    weights["norm.weight"][0] = torch.nan
    save_file(weights, path, {"format": "pt"})
    result = evaluate_weights([encoder, deeper], tmp_path / "out", baselines=["none"])
    reasons = {name: row["reason"] for name, row in rows_of(result, encoder, deeper).items() if row["reason"]}
    assert reasons["embeddings.patch_embeddings.weight"].startswith("different shapes: (")
    assert reasons["norm.weight"] == "values that are not finite"
    assert reasons["encoder.layers.2.norm1.weight"] == "only in one of the models"
    assert result.record["pairs"][0]["left_out"]["values that are not finite"] == 1


def test_half_precision_and_shards_are_read(encoder: str, tmp_path: Path) -> None:
    model = StedFmModel.from_pretrained(encoder)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half", max_shard_size="20KB")
    assert not (tmp_path / "half" / "model.safetensors").exists()
    half = str(tmp_path / "half")
    rows = rows_of(evaluate_weights([encoder, half], tmp_path / "out"), encoder, half)
    assert all(row["cosine"] < 1e-4 for row in rows.values())


def test_two_folders_of_the_same_name_keep_their_paths(encoder: str, tmp_path: Path) -> None:
    copy = str(shutil.copytree(encoder, tmp_path / "encoder"))
    result = evaluate_weights([encoder, copy], tmp_path / "out", baselines=["none"])
    assert [each["name"] for each in result.record["methods"]] == [encoder, copy]
    assert result.record["pairs"][0]["wasserstein"]["area_below_curve"] == 1


def test_wrong_input_is_refused(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to compare with"):
        evaluate_weights([encoder], tmp_path / "out", baselines=["none"])
    with pytest.raises(UserError, match="named twice"):
        evaluate_weights([encoder, encoder], tmp_path / "out")
    pickled = shutil.copytree(encoder, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickled.*there is no model\.safetensors"):
        evaluate_weights([encoder, str(pickled)], tmp_path / "out")
    damaged = shutil.copytree(encoder, tmp_path / "damaged")
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        evaluate_weights([encoder, str(damaged)], tmp_path / "out")
    other = shutil.copytree(encoder, tmp_path / "vit")
    config = json.loads((other / "config.json").read_text("utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"model_type": "vit"}), "utf-8")
    with pytest.raises(UserError, match="is not a STED-FM model"):
        evaluate_weights([str(other), encoder], tmp_path / "out")
    assert evaluate_weights([str(other), encoder], tmp_path / "out", baselines=["none"]).exit_status == 0
