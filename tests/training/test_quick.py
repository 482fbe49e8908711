"""The short pretraining: seeded, timed, and judged by the loss of a constant prediction."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining

from stedfm_hf.data import SimulationSettings, simulate_image
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training.crops import RandomCrops
from stedfm_hf.training.network import standardise_input
from stedfm_hf.training.network import standardised_network as new_model
from stedfm_hf.training.quick import (
    QuickResult,
    constant_loss,
    pretrain_quickly,
    quick_config,
)
from tests.models import tiny_config


def _images(count: int = 12) -> list[np.ndarray]:
    physics = SimulationSettings(height=48, width=40, photons=(50.0, 50.0))
    counts = [simulate_image("puncta", seed=0, index=index, settings=physics) for index in range(count)]
    return [np.clip(image / 50.0, 0.0, 1.0).astype(np.float32) for image in counts]


def _train(folder: Path, steps: int = 4, seed: int = 0) -> QuickResult:
    return pretrain_quickly(
        _images(),
        config=tiny_config(),
        output_dir=folder,
        seconds=1e6,
        max_steps=steps,
        seed=seed,
        device="cpu",
        precision="float32",
        batch_size=8,
        log=lambda _: None,
    )


def test_the_same_seed_gives_the_same_weights_and_losses_and_another_does_not(tmp_path: Path) -> None:
    one, same, other = (_train(tmp_path / name, seed=seed) for name, seed in [("a", 0), ("b", 0), ("c", 1)])
    states = [StedFmForPreTraining.from_pretrained(result.folder).state_dict() for result in (one, same, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["decoder.head.weight"], states[2]["decoder.head.weight"])
    assert [point.loss for point in one.held_out_loss] == [point.loss for point in same.held_out_loss]
    assert one.constant_loss == same.constant_loss


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_bfloat16_trains_too(tmp_path: Path, device: str) -> None:
    result = pretrain_quickly(
        _images(),
        config=tiny_config(),
        output_dir=tmp_path,
        max_steps=2,
        device=device,
        precision="bfloat16",
        batch_size=4,
        log=lambda _: None,
    )
    assert result.precision == "bfloat16" and np.isfinite(result.held_out_loss[-1].loss)
    assert StedFmForPreTraining.from_pretrained(result.folder).dtype == torch.float32


def test_the_callers_generators_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = torch.rand(3), random.random(), np.random.rand()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    _train(tmp_path, steps=1)
    assert torch.equal(torch.rand(3), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]


def test_it_learns_saves_both_networks_and_says_so(tmp_path: Path) -> None:
    lines: list[str] = []
    result = pretrain_quickly(
        [np.tile(np.linspace(0, 1, 48, dtype=np.float32), (48, 1))] * 8,
        config=tiny_config(),
        output_dir=tmp_path,
        seconds=1e6,
        max_steps=60,
        device="cpu",
        precision="float32",
        log=lines.append,
    )
    assert result.steps == 60
    assert result.crops == 60 * 32
    assert result.held_out_loss[0].loss == pytest.approx(result.constant_loss, rel=0.05)
    assert result.held_out_loss[-1].loss < 0.8 * result.constant_loss
    assert result.has_learned
    assert result.train_loss[-1].crops == 60 * 32
    assert len(lines) == len(result.held_out_loss) >= 10
    assert not list(tmp_path.glob(".*"))
    for folder in (result.folder, result.untrained):
        assert (folder / "preprocessor_config.json").is_file()
        assert AutoModel.from_pretrained(folder).config.hidden_size == 32
    trained = AutoModelForPreTraining.from_pretrained(result.folder)
    untrained = AutoModelForPreTraining.from_pretrained(result.untrained)
    assert not torch.equal(trained.decoder.head.bias, untrained.decoder.head.bias)


def test_time_ends_the_training(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    result = pretrain_quickly(
        _images(), config=tiny_config(), output_dir=tmp_path, seconds=0.5, device="cpu", log=lambda _: None
    )
    assert result.seconds >= 0.5
    assert result.steps >= 1
    assert len(result.held_out) == 1
    assert torch.get_num_threads() == threads


def test_standardisation_is_folded_into_the_patch_embedding() -> None:
    torch.manual_seed(0)
    plain = StedFmForPreTraining(tiny_config())
    torch.manual_seed(0)
    folded = StedFmForPreTraining(tiny_config())
    standardise_input(folded.stedfm, mean=0.2, std=0.1)
    pixels = torch.rand(2, 1, 32, 32)
    noise = torch.rand(2, 16)
    torch.testing.assert_close(
        folded.stedfm.embeddings(pixels), plain.stedfm.embeddings((pixels - 0.2) / 0.1), rtol=1e-4, atol=1e-5
    )
    assert folded(pixels, noise=noise).loss != plain(pixels, noise=noise).loss


def test_a_new_network_predicts_the_mean() -> None:
    model = new_model(tiny_config(), mean=0.3, std=0.1, seed=0)
    batch = RandomCrops(_images(), size=32, patches=16, batch_size=4, seed=0).batch(0)
    assert model(**batch).loss.item() == pytest.approx(constant_loss(model, batch, 0.3), rel=0.02)


def test_constant_loss_is_the_masked_mean_square() -> None:
    model = new_model(tiny_config(), mean=0.0, std=1.0, seed=0)
    pixels = torch.zeros(1, 1, 32, 32)
    pixels[..., :16, :] = 1.0
    noise = torch.arange(16.0)[None]  # keeps the first row of patches, masks rows 1 to 3
    assert constant_loss(model, {"pixel_values": pixels, "noise": noise}, 0.5) == pytest.approx(0.25)
    assert constant_loss(model, {"pixel_values": pixels, "noise": noise}, 0.0) == pytest.approx(1 / 3)


def test_a_batch_is_a_function_of_seed_and_number() -> None:
    def make(seed: int) -> RandomCrops:
        return RandomCrops(_images(), size=32, patches=16, batch_size=3, seed=seed)

    stream = iter(make(0))
    next(stream)
    second = next(stream)
    again = make(0).batch(1)
    assert torch.equal(second["pixel_values"], again["pixel_values"])
    assert torch.equal(second["noise"], again["noise"])
    assert not torch.equal(second["pixel_values"], make(1).batch(1)["pixel_values"])


def test_small_images_are_mirrored_and_wrong_ones_refused(tmp_path: Path) -> None:
    crops = RandomCrops([np.ones((5, 90), np.float32)], size=32, patches=16, batch_size=1, seed=0)
    assert crops.batch(0)["pixel_values"].min() == 1.0
    with pytest.raises(ValueError, match="shape \\(1, 5, 5\\)"):
        RandomCrops([np.ones((1, 5, 5))], size=32, patches=16, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="two images or more"):
        pretrain_quickly(_images(1), config=tiny_config(), output_dir=tmp_path)
    with pytest.raises(ValueError, match="one channel"):
        pretrain_quickly(_images(2), config=tiny_config(num_channels=2), output_dir=tmp_path)


def test_the_quick_architecture_keeps_the_encoder_and_narrows_the_decoder() -> None:
    config = quick_config()
    assert (config.image_size, config.patch_size, config.hidden_size, config.num_hidden_layers) == (64, 8, 128, 8)
    assert (config.decoder_hidden_size, config.decoder_num_hidden_layers) == (128, 1)
