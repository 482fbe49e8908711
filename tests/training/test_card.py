"""Model card of a pretraining: built from its folder, its curve and the cards of its data sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from stedfm_hf.data.repository.files import SplitFiles, find_split
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training.card import describe_data, describe_machine, write_card
from stedfm_hf.training.curve import CurveRow
from stedfm_hf.training.figures import save_figures
from tests.data.assembled import FACTS, noisy_crop, write_repo
from tests.data.repos import write_repo as write_train_only

ROWS = [
    CurveRow(0, 0.0, 0, held_out_loss=0.5, constant_loss=0.25, psnr=3.0, knn=0.25),
    CurveRow(10, 1.0, 3600, loss=0.4),
    CurveRow(20, 2.0, 7200, loss=0.3, images_per_second=2.0),
    CurveRow(30, 3.0, 10800, loss=0.2, images_per_second=1.0),
    CurveRow(30, 3.0, 10800, held_out_loss=0.125, constant_loss=0.25, psnr=9.0, knn=0.75),
]


@pytest.fixture(scope="module")
def model() -> StedFmForPreTraining:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    return StedFmForPreTraining(StedFmConfig(image_size=16, patch_size=8, num_hidden_layers=1, **sizes, **decoder))


@pytest.fixture
def train(tmp_path: Path) -> SplitFiles:
    facts = dataclasses.replace(FACTS, simulated=True)
    write_repo(tmp_path / "simulated-cells", [noisy_crop(number) for number in range(16)], facts)
    return find_split(tmp_path / "simulated-cells", "train")


def test_the_card_describes_the_run(tmp_path: Path, model: StedFmForPreTraining, train: SplitFiles) -> None:
    folder = tmp_path / "my-run"
    save_figures(folder, ROWS)
    (folder / "recipe.yaml").write_text("seed: 3\n", encoding="utf-8")
    recipe = {"seed": 3, "effective_batch_size": 360, "dataset": [str(tmp_path / "secret")], "ema_decay": None}
    card = write_card(
        folder,
        model,
        train=[train],
        rows=ROWS,
        steps=30,
        samples=10800,
        architecture="tiny",
        recipe=recipe,
        held_out_crops=42,
    )
    text = card.read_text(encoding="utf-8")
    # 3600 crops at 2 a second, as many at 1, and as many at the median of the two.
    assert "| time | 2.2 hours |" in text and "| speed | 2 crops per second |" in text
    assert f"| crops seen | 10,800 ({10800 / train.rows:.4g} epochs) |" in text
    assert "# my-run" in text and "only simulated images" in text and "| simulated-cells |" in text
    assert "0.12500 | 0.25000: best constant prediction" in text and "75.0 % | 25.0 %: before the first step" in text
    assert "(figures/curve.png)" in text and "reconstructions.png" not in text
    assert "`recipe.yaml`" in text and "curve.csv" not in text and "| `seed` | 3 |" in text
    assert str(tmp_path) not in text and "secret" not in text and "ema_decay" not in text


def test_metrics_are_reported_with_their_step(tmp_path: Path, model: StedFmForPreTraining, train: SplitFiles) -> None:
    def card(rows: list[CurveRow], **options: Any) -> str:
        known: dict[str, Any] = {"steps": 40, "samples": 14400, "architecture": "tiny", "recipe": {}} | options
        return write_card(tmp_path / "run", model, train=[train], rows=rows, **known).read_text("utf-8")

    assert "after step 30:" in card(ROWS) and "after the last step:" in card(ROWS, steps=30)
    assert "Held-out evaluation" not in card(ROWS[:-1]) and "kNN" not in card(ROWS[:-1])
    begun = card(ROWS, init_from=train.repo)
    assert "before the first step" not in begun and "weights of `simulated-cells`" in begun
    assert "hours" not in card([]) and "crops per second" not in card([])


def test_a_data_set_is_simulated_only_if_its_card_says_so(tmp_path: Path, train: SplitFiles) -> None:
    recorded = tmp_path / "recorded"
    write_repo(recorded, [noisy_crop(number) for number in range(16)])
    foreign = find_split(write_train_only(tmp_path / "foreign", (4, 4)), "train")
    assert describe_data(train).simulated is True
    assert describe_data(find_split(recorded, "train")).simulated is False
    assert describe_data(foreign).simulated is None
    (recorded / "README.md").unlink()
    assert describe_data(dataclasses.replace(train, repo=str(recorded))).simulated is None
    assert describe_data(train).name == "simulated-cells" and not describe_data(train).on_hub


def test_a_machine_is_described_without_its_name() -> None:
    described = describe_machine(2, torch.device("cpu"))
    assert described.startswith("CPU (") and "2 processes" in described
