"""The decoder of the packaged model is trained without changing its encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stedfm_hf.inference import load_encoder
from stedfm_hf.inference.reconstruction import load_autoencoder
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training import demo_decoder


def test_only_the_decoder_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_decoder, "BATCH_SIZE", 2)
    monkeypatch.setattr(demo_decoder, "FIELDS_PER_STRUCTURE", 1)
    demo_decoder.main(["--steps", "2", "--output", str(tmp_path)])
    made = StedFmForPreTraining.from_pretrained(tmp_path, dtype=torch.float32)
    before = load_encoder("demo", device="cpu").model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in made.stedfm.state_dict().items())
    packaged = load_autoencoder("demo", device="cpu").model
    assert not torch.equal(made.decoder.head.weight, packaged.decoder.head.weight)
