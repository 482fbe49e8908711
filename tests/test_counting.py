"""Counted costs of a pretraining (`tests/benchmarks/counting.py`), from which docs/benchmarks/scaling.md is made."""

from typing import Any

import pytest
import torch

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from tests.benchmarks.counting import all_reduce_bytes, derived_operations, step_operations
from tests.benchmarks.scaling_page import NOT_MEASURED, Size, on_gpus

SMALL = StedFmConfig(
    image_size=48,
    num_channels=2,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=40,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=56,
    mask_ratio=0.6,
)


@pytest.mark.parametrize("config", [SMALL, StedFmConfig(**ARCHITECTURES["stedfm-vit-tiny"])], ids=["odd", "tiny"])
def test_what_torch_counts_is_what_the_sizes_say(config: StedFmConfig) -> None:
    assert step_operations(config) == derived_operations(config)


def test_counting_leaves_the_configuration_alone() -> None:
    before = SMALL._attn_implementation
    step_operations(SMALL)
    assert SMALL._attn_implementation == before


def test_a_ring_sends_twice_the_gradients_but_for_the_share_of_the_device() -> None:
    model = StedFmForPreTraining(SMALL)
    parameters = sum(values.numel() for values in model.parameters())
    stored = sum(values.numel() * torch.finfo(values.dtype).bits // 8 for values in model.parameters())
    assert all_reduce_bytes(parameters, 1) == 0
    assert all_reduce_bytes(parameters, 2) == stored
    assert all_reduce_bytes(parameters, 8) == stored * 7 / 4


def gpu_row(**changed: Any) -> dict[str, Any]:
    row = {"model": "small", "kind": "cuda", "device": "GPU X", "devices": 1, "batch": 128, "precision": "bfloat16"}
    return row | {"compiled": False, "whole": [90.0, 100.0, 110.0]} | changed


def page_of(*rows: dict[str, Any]) -> str:
    return on_gpus([Size("small", 1000, 10**10, 10**10, epochs=9, effective_batch_size=1000)], list(rows))


def test_a_page_without_measured_gpus_gives_no_figure_of_one() -> None:
    rows = [gpu_row(kind="cpu"), gpu_row(model="base"), gpu_row(batch=2000)]
    del rows[1]["whole"]
    assert page_of(*rows).count(NOT_MEASURED) == 1 and "GPU X" not in page_of(*rows)


def test_hours_and_scaling_come_from_what_was_measured() -> None:
    page = page_of(gpu_row(), gpu_row(batch=64), gpu_row(devices=8, batch=125, whole=[400.0]))
    one, eight, more = (line.split(" | ") for line in page.splitlines() if "GPU X" in line)
    assert one[-2:] == ["25", "25 |"]  # 9 million crops at 100 a second
    assert eight[4:] == ["50 %", "6.25", "50 |"]
    assert "upper bound" in more[4] and more[5] == "0.391"
