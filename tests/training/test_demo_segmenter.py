"""The packaged decoder for masks belongs to the encoder `demo`, and is exported from a model trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stedfm_hf.data import simulate_field
from stedfm_hf.inference import load_encoder, load_segmenter
from stedfm_hf.modeling.blending_stedfm import segment_image
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import UserError
from stedfm_hf.training.demo_segmenter import export_decoder
from stedfm_hf.weights.packaged import SEGMENTER, write_demo_segmenter


def test_it_is_the_encoder_demo_with_a_small_decoder(tmp_path: Path) -> None:
    segmenter = load_segmenter(write_demo_segmenter(tmp_path / "model"), device="cpu")
    assert segmenter.classes == ("background", "rings", "fibres", "puncta")
    image = np.random.default_rng(0).random((1, 64, 64), np.float32)
    encoder = load_encoder("demo", device="cpu")
    tokens = [next(iter(encode_images(each.model, [image], pooling="patch"))) for each in (segmenter, encoder)]
    assert np.array_equal(tokens[0], tokens[1])
    assert sum(file.stat().st_size for file in SEGMENTER.iterdir()) < 600_000
    assert "simulated images only" in (SEGMENTER / "README.md").read_text(encoding="utf-8")


def test_it_finds_simulated_structures(tmp_path: Path) -> None:
    segmenter = load_segmenter(write_demo_segmenter(tmp_path), device="cpu")
    counts = np.zeros((3, 2))
    for index in range(4):
        field = simulate_field(["rings", "fibres", "puncta"], seed=77, index=index)
        probabilities = segment_image(segmenter.model, segmenter.processor.prepare(field.image))
        for number, name in enumerate(("rings", "fibres", "puncta")):
            found, mask = probabilities.argmax(axis=0) == segmenter.classes.index(name), field.masks[name]
            counts[number] += (found & mask).sum(), (found | mask).sum()
    assert (counts[:, 0] / counts[:, 1]).min() > 0.4, counts[:, 0] / counts[:, 1]


def test_export_keeps_the_decoder_and_refuses_another_encoder(tmp_path: Path) -> None:
    model = load_segmenter(write_demo_segmenter(tmp_path / "model"), device="cpu").model
    model.save_pretrained(tmp_path / "saved")
    export_decoder(tmp_path / "saved", tmp_path / "exported")
    made, packaged = (load_file(folder / "decoder.safetensors") for folder in (tmp_path / "exported", SEGMENTER))
    assert made.keys() == packaged.keys() and all(torch.equal(made[name], packaged[name]) for name in made)
    with torch.no_grad():
        model.stedfm.norm.weight.add_(1)
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="its encoder is not that of demo"):
        export_decoder(tmp_path / "other", tmp_path / "exported")
