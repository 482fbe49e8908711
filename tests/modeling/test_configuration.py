from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from stedfm_hf import StedFmConfig, StedFmForPreTraining
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from tests import parity
from tests.models import tiny_config


def test_the_default_is_the_published_architecture() -> None:
    small = StedFmConfig(**ARCHITECTURES["stedfm-vit-small"])
    assert small.to_dict() == StedFmConfig().to_dict()


@pytest.mark.parametrize("name", ["64-p8", "tiny", "small"])
def test_parameter_counts_are_those_of_the_reference(name: str) -> None:
    model = StedFmForPreTraining(StedFmConfig(**ARCHITECTURES[f"stedfm-vit-{name}"]))
    shapes = parity.REFERENCE[name]["state_dict"]
    expected = sum(
        parity.tensor(key, tuple(shape)).numel()
        for key, (shape, _) in shapes.items()
        if parity.our_key(key) is not None
    )
    assert sum(p.numel() for p in model.parameters()) == expected


def test_round_trip(tmp_path: Path) -> None:
    config = tiny_config(out_indices=[1, 2], num_labels=3, target_type="soft", mask_ratio=0.5)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is StedFmConfig
    assert loaded.out_features == ["stage1", "stage2"] and loaded.num_labels == 3
    assert loaded.target_type == "soft" and loaded.mask_ratio == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of avg, token"),
        ({"target_type": "many"}, "target_type must be one of"),
        ({"mask_ratio": 1}, "mask_ratio"),
        ({"decoder_num_hidden_layers": 0}, "decoder_num_hidden_layers must be at least 1"),
        ({"image_size": 30}, "multiple of patch_size"),
        ({"num_attention_heads": 3}, "hidden_size 32 is not a multiple of num_attention_heads 3"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"out_indices": [3]}, "out_indices"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        tiny_config(**change)
